//! What a program asks of the system it runs on, read from the program itself (System V ABI, chapters 4 and 5; LSB,
//! symbol versioning). Knows 64-bit little-endian ELF files.

/// What a program asks of the system.
#[derive(Debug, PartialEq)]
pub struct Needs {
    pub machine: Machine,
    /// The newest version of glibc that it names, as the number after `2.`; none where it names none.
    pub glibc: Option<u32>,
    /// The libraries that are loaded with it.
    pub libraries: Vec<String>,
}

/// For what processor it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// As triples and tags of wheels write it.
    pub fn name(self) -> &'static str {
        match self {
            Machine::X86_64 => "x86_64",
            Machine::Aarch64 => "aarch64",
        }
    }

    /// As Debian writes it.
    pub fn debian(self) -> &'static str {
        match self {
            Machine::X86_64 => "amd64",
            Machine::Aarch64 => "arm64",
        }
    }
}

const DYNAMIC: u64 = 6;
const VERSIONS_NEEDED: u64 = 0x6fff_fffe;

impl Needs {
    /// Reads the tables of a program.
    pub fn of(file: &[u8]) -> Result<Self, String> {
        if file.get(..6) != Some(b"\x7fELF\x02\x01") {
            return Err("it is no 64-bit little-endian ELF file".into());
        }
        let machine = match number(file, 18, 2)? {
            62 => Machine::X86_64,
            183 => Machine::Aarch64,
            other => return Err(format!("it is for machine {other}, of which packages are not made")),
        };
        let mut needs = Self { machine, glibc: None, libraries: vec![] };
        let (table, size, count) = (number(file, 40, 8)?, number(file, 58, 2)?, number(file, 60, 2)?);
        let section =
            |index: u64| table.checked_add(index.saturating_mul(size)).ok_or("its table of sections is damaged");
        for index in 0..count {
            let header = section(index)?;
            let kind = number(file, header.saturating_add(4), 4)?;
            if kind != DYNAMIC && kind != VERSIONS_NEEDED {
                continue;
            }
            let strings = number(file, section(number(file, header.saturating_add(40), 4)?)?.saturating_add(24), 8)?;
            let (start, length) = (number(file, header + 24, 8)?, number(file, header + 32, 8)?);
            if kind == DYNAMIC {
                needs.read_libraries(file, start, length, strings)?;
            } else {
                needs.read_versions(file, start, strings)?;
            }
        }
        needs.libraries.sort();
        Ok(needs)
    }

    fn read_libraries(&mut self, file: &[u8], start: u64, length: u64, strings: u64) -> Result<(), String> {
        for entry in (start..start.saturating_add(length)).step_by(16) {
            match number(file, entry, 8)? {
                0 => break,
                1 => self.libraries.push(text(file, strings.saturating_add(number(file, entry + 8, 8)?))?.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Each library has a list of versions; each entry says how far the next is.
    fn read_versions(&mut self, file: &[u8], start: u64, strings: u64) -> Result<(), String> {
        let mut library = start;
        loop {
            let mut version = library.saturating_add(number(file, library.saturating_add(8), 4)?);
            for _ in 0..number(file, library.saturating_add(2), 2)? {
                let name = text(file, strings.saturating_add(number(file, version.saturating_add(8), 4)?))?;
                let minor = name.strip_prefix("GLIBC_2.").and_then(|rest| rest.split('.').next()?.parse().ok());
                self.glibc = self.glibc.max(minor);
                version = version.saturating_add(number(file, version.saturating_add(12), 4)?);
            }
            match number(file, library.saturating_add(12), 4)? {
                0 => return Ok(()),
                next => library = library.saturating_add(next),
            }
        }
    }
}

/// A number of so many bytes, the lowest first.
fn number(file: &[u8], at: u64, bytes: usize) -> Result<u64, String> {
    let start = usize::try_from(at).unwrap_or(usize::MAX);
    let digits = start.checked_add(bytes).and_then(|end| file.get(start..end)).ok_or("it ends within its tables")?;
    Ok(digits.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A text that ends in zero.
fn text(file: &[u8], at: u64) -> Result<&str, String> {
    let rest = usize::try_from(at).ok().and_then(|start| file.get(start..)).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0).ok_or("it ends within a name")?;
    std::str::from_utf8(&rest[..end]).map_err(|_| "a name in its tables is no text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_says_what_it_needs_itself() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = Needs::of(&file).unwrap();
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{needs:?}");
        // `__libc_start_main` has a version of its own since 2.34.
        assert!(needs.glibc.is_some_and(|minor| minor >= 17), "{needs:?}");
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let mut file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(Needs::of(b"#!/bin/sh\n").unwrap_err().contains("no 64-bit"));
        assert!(Needs::of(&file[..100]).unwrap_err().contains("ends within"));
        file[40..48].fill(0xff);
        assert!(Needs::of(&file).is_err());
    }
}
