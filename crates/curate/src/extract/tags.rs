//! The elements and attributes that matter to the extraction, and what kind of element each is.

macro_rules! names {
    ($(#[$doc:meta])* $kind:ident { $($variant:ident = $name:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $kind { $($variant,)* Other }

        impl $kind {
            /// The variant of a name in lower case.
            pub(super) fn named(name: &[u8]) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

names! {
    /// An element by its name; `Text` is none.
    Tag {
        Text = b"#text", A = b"a", Abbr = b"abbr", Address = b"address", Applet = b"applet", Area = b"area",
        Article = b"article", Aside = b"aside", Audio = b"audio", B = b"b", Base = b"base", Big = b"big",
        Blockquote = b"blockquote", Body = b"body", Br = b"br", Button = b"button", Canvas = b"canvas",
        Caption = b"caption", Center = b"center", Cite = b"cite", Code = b"code", Col = b"col",
        Colgroup = b"colgroup", Datalist = b"datalist", Dd = b"dd", Del = b"del", Details = b"details",
        Dialog = b"dialog", Dir = b"dir", Div = b"div", Dl = b"dl", Dt = b"dt", Em = b"em", Embed = b"embed",
        Fieldset = b"fieldset", Figcaption = b"figcaption", Figure = b"figure", Font = b"font", Footer = b"footer",
        Form = b"form", Frame = b"frame", Frameset = b"frameset", H1 = b"h1", H2 = b"h2", H3 = b"h3", H4 = b"h4",
        H5 = b"h5", H6 = b"h6", Head = b"head", Header = b"header", Hgroup = b"hgroup", Hr = b"hr", Html = b"html",
        I = b"i", Iframe = b"iframe", Img = b"img", Input = b"input", Ins = b"ins", Label = b"label",
        Legend = b"legend", Li = b"li", Link = b"link", Main = b"main", Map = b"map", Mark = b"mark",
        Marquee = b"marquee", Math = b"math", Menu = b"menu", Meta = b"meta", Nav = b"nav", Noscript = b"noscript",
        Object = b"object", Ol = b"ol", Optgroup = b"optgroup", OptionItem = b"option", Output = b"output", P = b"p",
        Param = b"param", Picture = b"picture", Pre = b"pre", Progress = b"progress", Q = b"q", Rp = b"rp",
        Rt = b"rt", S = b"s", Script = b"script", Section = b"section", Select = b"select", Small = b"small",
        Source = b"source", Span = b"span", Strong = b"strong", Style = b"style", Sub = b"sub",
        Summary = b"summary", Sup = b"sup", Svg = b"svg", Table = b"table", Tbody = b"tbody", Td = b"td",
        Template = b"template", Textarea = b"textarea", Tfoot = b"tfoot", Th = b"th", Thead = b"thead",
        Time = b"time", Title = b"title", Tr = b"tr", Track = b"track", U = b"u", Ul = b"ul", Video = b"video",
        Wbr = b"wbr",
    }
}

names! {
    /// An attribute by its name.
    Attribute {
        Class = b"class", Id = b"id", Href = b"href", Role = b"role", Itemprop = b"itemprop", Style = b"style",
        Name = b"name", Property = b"property", Content = b"content", Lang = b"lang", Rel = b"rel",
        Datetime = b"datetime", Type = b"type", AriaHidden = b"aria-hidden", Hidden = b"hidden",
    }
}

impl Tag {
    /// Has no content and no end tag.
    pub(super) fn is_void(self) -> bool {
        use Tag::*;
        matches!(
            self,
            Area | Base | Br | Col | Embed | Frame | Hr | Img | Input | Link | Meta | Param | Source | Track | Wbr
        )
    }

    /// Begins and ends a block of text.
    pub(super) fn is_block(self) -> bool {
        use Tag::*;
        self.is_heading()
            || self.is_cell()
            || matches!(
                self,
                Address
                    | Article
                    | Aside
                    | Blockquote
                    | Body
                    | Caption
                    | Center
                    | Dd
                    | Details
                    | Dialog
                    | Dir
                    | Div
                    | Dl
                    | Dt
                    | Fieldset
                    | Figcaption
                    | Figure
                    | Footer
                    | Form
                    | Frameset
                    | Head
                    | Header
                    | Hgroup
                    | Hr
                    | Html
                    | Li
                    | Main
                    | Menu
                    | Nav
                    | Ol
                    | P
                    | Pre
                    | Section
                    | Summary
                    | Table
                    | Tbody
                    | Tfoot
                    | Thead
                    | Tr
                    | Ul
            )
    }

    /// `h1` to `h6`.
    pub(super) fn is_heading(self) -> bool {
        matches!(self, Tag::H1 | Tag::H2 | Tag::H3 | Tag::H4 | Tag::H5 | Tag::H6)
    }

    pub(super) fn is_cell(self) -> bool {
        matches!(self, Tag::Td | Tag::Th)
    }

    pub(super) fn is_list(self) -> bool {
        matches!(self, Tag::Ul | Tag::Ol | Tag::Dl)
    }

    pub(super) fn is_item(self) -> bool {
        matches!(self, Tag::Li | Tag::Dd | Tag::Dt)
    }

    /// Its text is never read by people, or not as text.
    pub(super) fn is_mute(self) -> bool {
        use Tag::*;
        matches!(
            self,
            Applet
                | Audio
                | Canvas
                | Datalist
                | Embed
                | Iframe
                | Map
                | Math
                | Noscript
                | Object
                | Optgroup
                | OptionItem
                | Progress
                | Rp
                | Rt
                | Script
                | Select
                | Style
                | Svg
                | Template
                | Textarea
                | Video
        )
    }

    /// Holds what is beside the text of a page.
    pub(super) fn is_aside(self) -> bool {
        use Tag::*;
        matches!(
            self,
            Aside
                | Button
                | Dialog
                | Fieldset
                | Figure
                | Footer
                | Form
                | Head
                | Input
                | Ins
                | Label
                | Legend
                | Marquee
                | Menu
                | Nav
                | Output
                | Picture
                | Time
        )
    }
}
