//! A package for Debian and what stems from it (deb(5), Debian Policy 4.7, DEP-5). Installing it runs no scripts.

use super::{
    Release, completion_path,
    elf::Needs,
    licenses::{Licenses, Linked},
    read,
    tree::{Tree, ar, gzip},
    wheel::date,
};
use crate::tidy::root;
use md5::{Digest, Md5};
use std::collections::{BTreeMap, BTreeSet};

/// The unit of systemd, below the repository's root.
const UNIT: &str = "packaging/debian/narthex-serve@.service";
const ROUTER: &str = "packaging/debian/narthex-route.service";

/// What lintian is told not to say, and why.
const OVERRIDES: &str = "packaging/debian/lintian-overrides";

/// The package's own revision of the version.
const REVISION: u32 = 1;

/// The package's name and bytes.
pub fn make(release: &Release) -> Result<(String, Vec<u8>), String> {
    let version = format!("{}-{REVISION}", release.version.replace("-", "~"));
    let architecture = release.needs.machine.debian();
    let mut tree = Tree::default();
    tree.program("usr/bin/narthex", release.binary.clone());
    for (shell, script) in &release.completions {
        tree.file(format!("usr/{}", completion_path(shell)), script.clone());
    }
    for (page, text) in &release.manual {
        tree.file(format!("usr/share/man/man1/{page}.gz"), gzip(text)?);
    }
    tree.file("usr/lib/systemd/system/narthex-serve@.service", read(&root().join(UNIT))?);
    // The same folder on every system since Debian 12, where its own packages name it so.
    tree.file("lib/systemd/system/narthex-route.service", read(&root().join(ROUTER))?);
    tree.file("usr/share/lintian/overrides/narthex", read(&root().join(OVERRIDES))?);
    let papers = "usr/share/doc/narthex";
    tree.file(format!("{papers}/copyright"), copyright(&release.licenses).into_bytes());
    tree.file(format!("{papers}/third-party.txt.gz"), gzip(release.licenses.third_party().as_bytes())?);
    tree.file(format!("{papers}/changelog.Debian.gz"), gzip(changelog(release, &version).as_bytes())?);
    let mut control = Tree::default();
    control.file("control", fields(release, &version, &tree).into_bytes());
    control.file("md5sums", sums(&tree).into_bytes());
    let (control, data) = (gzip(&control.tar(release.time)?)?, gzip(&tree.tar(release.time)?)?);
    let members: [(&str, &[u8]); 3] =
        [("debian-binary", b"2.0\n"), ("control.tar.gz", &control), ("data.tar.gz", &data)];
    Ok((format!("narthex_{version}_{architecture}.deb"), ar(&members, release.time)))
}

fn fields(release: &Release, version: &str, tree: &Tree) -> String {
    let kibibytes: u64 = tree.files().map(|(_, bytes, _)| (bytes.len() as u64).div_ceil(1024)).sum();
    format!(
        "Package: narthex\nVersion: {version}\nArchitecture: {}\nMaintainer: {}\nInstalled-Size: {kibibytes}\n\
         Depends: {}\nRecommends: ca-certificates\nSection: science\nPriority: optional\n\
         Description: makes and serves language models with lineage and licences\n \
         Narthex takes raw data to a licensed model that answers over the OpenAI API,\n \
         in one program: it filters and tokenizes texts, trains and tunes models,\n \
         evaluates them, writes down what each was made from and under which terms,\n \
         and serves them over HTTP, alone or behind agents.\n",
        release.needs.machine.debian(),
        release.maintainer,
        depends(&release.needs),
    )
}

/// The packages whose libraries the binary asks for.
fn depends(needs: &Needs) -> String {
    let mut packages = vec![match needs.glibc {
        Some(minor) => format!("libc6 (>= 2.{minor})"),
        None => "libc6 (>= 2.17)".into(),
    }];
    if needs.libraries.iter().any(|name| name == "libgcc_s.so.1") {
        packages.push("libgcc-s1 (>= 4.2)".into());
    }
    packages.join(", ")
}

fn sums(tree: &Tree) -> String {
    tree.files().map(|(path, bytes, _)| format!("{}  {path}\n", super::hex(&Md5::digest(bytes)))).collect()
}

fn changelog(release: &Release, version: &str) -> String {
    let (year, month, day) = date(release.time);
    let second = release.time % 86_400;
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let weekday = DAYS[(release.time / 86_400 % 7) as usize];
    let month = MONTHS[(month as usize).saturating_sub(1) % 12];
    format!(
        "narthex ({version}) unstable; urgency=medium\n\n  * Version {} of Narthex.\n\n -- {}  {weekday}, {day:02} {month} \
         {year} {:02}:{:02}:{:02} +0000\n",
        release.version,
        release.maintainer,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Whose it is and under which terms, in the form of DEP-5: ours, then crates by their terms.
fn copyright(licenses: &Licenses) -> String {
    let mut text = String::from(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: narthex\n\n\
         Files: *\nCopyright: The Narthex contributors\nLicense: Apache-2.0 or MIT\n",
    );
    let mut by_terms: BTreeMap<String, Vec<&Linked>> = BTreeMap::new();
    for linked in &licenses.crates {
        by_terms.entry(synopsis(&linked.license)).or_default().push(linked);
    }
    let mut names = BTreeSet::from(["Apache-2.0".to_string(), "MIT".to_string()]);
    for (terms, crates) in &by_terms {
        names.extend(parts(terms));
        let files: Vec<String> =
            crates.iter().map(|linked| format!("crates.io/{}-{}/*", linked.name, linked.version)).collect();
        let owners: BTreeSet<&str> =
            crates.iter().flat_map(|linked| linked.copyright.iter().map(String::as_str)).collect();
        let mut owners: Vec<&str> = owners.into_iter().collect();
        if crates.iter().any(|linked| linked.copyright.is_empty()) {
            owners.push("The authors of these crates");
        }
        text += &format!("\nFiles: {}\nCopyright: {}\nLicense: {terms}\n", files.join("\n "), owners.join("\n "));
    }
    for name in names {
        text += &format!("\nLicense: {name}\n{}", indented(&terms_of(&name, licenses)));
    }
    text
}

/// The text of terms, or where it is to be found.
fn terms_of(name: &str, licenses: &Licenses) -> String {
    match name {
        "Apache-2.0" => "The full text is in /usr/share/common-licenses/Apache-2.0.".into(),
        "MPL-2.0" => "The full text is in /usr/share/common-licenses/MPL-2.0.".into(),
        "MIT" => {
            let body = licenses.mit.split_once("Permission is hereby").map_or(licenses.mit.as_str(), |(_, body)| body);
            format!("Permission is hereby{body}")
        }
        _ => "The texts are in /usr/share/doc/narthex/third-party.txt.gz, each with the crates that\nstand under it."
            .into(),
    }
}

/// A text as the lines that continue a field.
fn indented(text: &str) -> String {
    let line = |line: &str| if line.trim().is_empty() { " .\n".into() } else { format!(" {}\n", line.trim_end()) };
    text.trim().lines().map(line).collect()
}

/// An expression of SPDX as DEP-5 writes it.
fn synopsis(expression: &str) -> String {
    let words = expression.replace('/', " OR ").replace(") AND", ", AND").replace(['(', ')'], " ");
    let words = words.split_whitespace().map(|word| match word {
        "OR" => "or",
        "AND" => "and",
        "WITH" => "with",
        other => other,
    });
    words.collect::<Vec<_>>().join(" ").replace(" ,", ",")
}

/// The names of terms in a synopsis.
fn parts(synopsis: &str) -> Vec<String> {
    let names = synopsis.replace(',', " ").replace(" and ", "\n").replace(" or ", "\n");
    names.lines().map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::elf::Machine;

    #[test]
    fn terms_as_debian_writes_them() {
        for (expression, expected, names) in [
            ("MIT OR Apache-2.0", "MIT or Apache-2.0", &["MIT", "Apache-2.0"][..]),
            ("MIT/Apache-2.0", "MIT or Apache-2.0", &["MIT", "Apache-2.0"]),
            (
                "(MIT OR Apache-2.0) AND Unicode-3.0",
                "MIT or Apache-2.0, and Unicode-3.0",
                &["MIT", "Apache-2.0", "Unicode-3.0"],
            ),
            ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 with LLVM-exception", &["Apache-2.0 with LLVM-exception"]),
        ] {
            assert_eq!(synopsis(expression), expected);
            assert_eq!(parts(expected), names);
        }
        assert_eq!(indented("a\n\nb \n"), " a\n .\n b\n");
    }

    #[test]
    fn packages_of_libraries() {
        let needs = |glibc| Needs { machine: Machine::X86_64, glibc, libraries: vec!["libgcc_s.so.1".into()] };
        assert_eq!(depends(&needs(Some(34))), "libc6 (>= 2.34), libgcc-s1 (>= 4.2)");
    }
}
