//! Who asks: what belongs to one is not there for another. Knows no keys and no protocol.

use serde::{Deserialize, Serialize};

/// Characters of a name at most.
const NAME_CHARS_MAX: usize = 64;

/// Whoever asks a server: the owner of the runs, tasks and other things that a request makes and sees. Whoever has
/// authenticated a request sets it; where nobody did, it is [`Caller::local`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Caller(pub String);

impl Caller {
    /// The name of whoever sits at this machine, and of all whom nobody tells apart.
    pub const LOCAL: &str = "local";

    /// Whoever sits at this machine.
    pub fn local() -> Self {
        Self(Self::LOCAL.into())
    }

    /// The caller of this name; none if it is no name: 1 to 64 of `A–Z a–z 0–9 _ - .`.
    pub fn named(name: &str) -> Option<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        ((1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(fits)).then(|| Self(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [("local", true), ("team-a.1_x", true), ("", false), ("a b", false), ("é", false)] {
            assert_eq!(Caller::named(name).is_some(), expected, "{name}");
        }
        assert!(Caller::named(&"a".repeat(65)).is_none());
    }
}
