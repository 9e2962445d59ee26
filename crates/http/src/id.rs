//! Names for requests and answers that differ each time. Knows no random numbers that could be drawn again.

use std::hash::{BuildHasher, RandomState};

/// 64 bits that differ each time: std keys each hasher's state from the system's entropy.
pub fn entropy() -> u64 {
    RandomState::new().hash_one(0u64)
}

/// A new name: `prefix-` and 32 hexadecimal digits.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}-{:016x}{:016x}", entropy(), entropy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_differ() {
        let names: BTreeSet<String> = (0..8).map(|_| new_id("req")).collect();
        assert!(names.len() == 8 && names.iter().all(|name| name.starts_with("req-") && name.len() == 36), "{names:?}");
    }
}
