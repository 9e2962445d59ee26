//! When a server goes over to another version of what it serves. It decides, and nothing else: no clock, no threads, no
//! models.

use narthex_base::{Digest, Error, Result};

/// What to do now.
#[derive(Debug)]
pub enum FollowMove {
    /// Nothing.
    Stay,
    /// Say that there is no other version than the one that answers.
    SayUnchanged,
    /// Say that the reference could not be looked up; the model that answers goes on.
    SayUnknown(Error),
    /// Load what the reference stands for, and say what came of it.
    Load,
}

/// Which version answers, and which was tried last.
#[derive(Clone, Copy, Debug)]
pub struct Follow {
    served: Option<Digest>,
    tried: Option<Digest>,
}

impl Follow {
    /// From the version that answers; none for a folder.
    pub fn new(served: Option<Digest>) -> Self {
        Self { served, tried: served }
    }

    /// What to do about the version that the reference stands for now. `by_hand` is what somebody asked for.
    pub fn next(&mut self, version: Result<Option<Digest>>, by_hand: bool) -> FollowMove {
        let version = match version {
            Ok(version) => version,
            // A name may be away for a moment while a run renews it.
            Err(_) if !by_hand => return FollowMove::Stay,
            Err(error) => return FollowMove::SayUnknown(error),
        };
        if version.is_some() && version == self.served && by_hand {
            return FollowMove::SayUnchanged;
        }
        // A version that could not be loaded is tried again by hand only.
        if version == self.tried && !by_hand {
            return FollowMove::Stay;
        }
        self.tried = version;
        FollowMove::Load
    }

    /// That version answers now.
    pub fn loaded(&mut self, version: Option<Digest>) {
        (self.served, self.tried) = (version, version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_and_fail() {
        let [first, second, third] = ["1", "2", "3"].map(|text| Some(Digest::of(text.as_bytes())));
        let mut follow = Follow::new(first);
        let mut check = |version: Option<Option<Digest>>, by_hand: bool, loads: bool, expected: &str| {
            let unknown = || Error::input("there is no artifact");
            let found = follow.next(version.ok_or_else(unknown), by_hand);
            if let (FollowMove::Load, true) = (&found, loads) {
                follow.loaded(version.expect("it was found"));
            }
            let said = match found {
                FollowMove::Stay => "stay",
                FollowMove::SayUnchanged => "unchanged",
                FollowMove::SayUnknown(_) => "unknown",
                FollowMove::Load => "load",
            };
            assert_eq!(said, expected, "{version:?} {by_hand}");
        };
        check(Some(first), false, true, "stay");
        check(Some(first), true, true, "unchanged");
        check(None, false, true, "stay");
        check(None, true, true, "unknown");
        // One that can't be loaded is tried once, and again by hand.
        check(Some(second), false, false, "load");
        check(Some(second), false, false, "stay");
        check(Some(second), true, true, "load");
        check(Some(second), true, true, "unchanged");
        check(Some(third), false, true, "load");
        check(Some(first), false, true, "load");
        // A folder has no versions: it is read again by hand, and only then.
        let mut follow = Follow::new(None);
        assert!(matches!(follow.next(Ok(None), false), FollowMove::Stay));
        assert!(matches!(follow.next(Ok(None), true), FollowMove::Load));
    }
}
