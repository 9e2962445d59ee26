//! Pages as functions of SQL: `page_text(html)` is the main text of a page; `page_title`, `page_language`,
//! `page_date`, `page_author`, `page_site` and `page_description` are what it says of itself, null where it says
//! nothing; `page_reason(html)` is why it gives no text, null if it gives one. A page is text, or bytes in whatever
//! encoding they name.

use crate::functions::column;
use datafusion::{
    arrow::{compute::cast, datatypes::DataType},
    common::cast::as_large_binary_array,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility},
    prelude::SessionContext,
};
use narthex_curate::extract::{Extracted, Options, extract};
use rayon::prelude::*;

/// Makes the functions known to queries.
pub(crate) fn register(context: &SessionContext) {
    for part in Part::ALL {
        context.register_udf(ScalarUDF::new_from_impl(PageFunction::new(part)));
    }
}

/// What is asked of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Text,
    Reason,
    Title,
    Language,
    Date,
    Author,
    Site,
    Description,
}

impl Part {
    const ALL: [Self; 8] = [
        Self::Text,
        Self::Reason,
        Self::Title,
        Self::Language,
        Self::Date,
        Self::Author,
        Self::Site,
        Self::Description,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Text => "page_text",
            Self::Reason => "page_reason",
            Self::Title => "page_title",
            Self::Language => "page_language",
            Self::Date => "page_date",
            Self::Author => "page_author",
            Self::Site => "page_site",
            Self::Description => "page_description",
        }
    }

    fn of(self, page: &[u8]) -> Option<String> {
        let found = match (extract(page, &Options::default()), self) {
            (Err(why), Self::Reason) => return Some(why.name().into()),
            (Err(_), _) | (Ok(_), Self::Reason) => return None,
            (Ok(found), _) => found,
        };
        let Extracted { text, title, language, date, author, site, description, .. } = found;
        match self {
            Self::Text => Some(text),
            Self::Title => title,
            Self::Language => language,
            Self::Date => date,
            Self::Author => author,
            Self::Site => site,
            Self::Description => description,
            Self::Reason => None,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PageFunction {
    part: Part,
    signature: Signature,
}

impl PageFunction {
    fn new(part: Part) -> Self {
        use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
        let types = [Utf8View, Utf8, LargeUtf8, BinaryView, Binary, LargeBinary];
        let one = types.map(|kind| TypeSignature::Exact(vec![kind])).into();
        Self { part, signature: Signature::one_of(one, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for PageFunction {
    fn name(&self) -> &str {
        self.part.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let pages = cast(&arrays[0], &DataType::LargeBinary)?;
        let pages: Vec<Option<&[u8]>> = as_large_binary_array(&pages)?.iter().collect();
        let answers: Vec<Option<String>> = pages.into_par_iter().map(|page| self.part.of(page?)).collect();
        Ok(column(&answers))
    }
}
