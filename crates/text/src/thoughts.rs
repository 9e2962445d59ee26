//! How models mark what they think before they answer. Knows templates' sources, no answers.

/// Beginning and end, by what a template's source holds of them; the first that it knows.
const MARKS: [(&str, &str); 3] = [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")];

/// The marks around the thoughts of a model with this chat template, if it thinks.
pub fn thought_marks(template: &str) -> Option<(&'static str, &'static str)> {
    MARKS.into_iter().find(|(_, close)| template.contains(close))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_tell_their_marks() {
        for (template, open) in [
            ("{{ '<think>\\n' }}…{{ content.split('</think>')[-1] }}", Some("<think>")),
            ("[THINK]…[/THINK]", Some("[THINK]")),
            ("{{ '<|im_start|>' + message['role'] }}", None),
            ("", None),
        ] {
            assert_eq!(thought_marks(template).map(|(open, _)| open), open, "{template}");
        }
    }
}
