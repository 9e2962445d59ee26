//! The texts of SPDX's list, as they are, as people write them down, and changed.

use super::*;
use crate::license::text_of;

fn known(text: &str) -> Option<String> {
    recognise(text).unchanged().map(|license| license.to_string())
}

/// The licences that are recognised; what shares a text with another is left out.
fn ids() -> impl Iterator<Item = &'static str> {
    Template::all().into_iter().map(|template| template.id).filter(|id| *id != "MPL-2.0-no-copyleft-exception")
}

/// The text with a part put otherwise.
fn with(id: &str, old: &str, new: &str) -> String {
    let text = text_of(id).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(old), "{id} says {old}");
    text.replacen(old, new, 1)
}

#[test]
fn every_text_of_the_list_is_its_own() {
    for id in ids() {
        let found = recognise(text_of(id).unwrap());
        assert_eq!(found.unchanged().as_ref().map(License::as_str), Some(id), "{found:?}");
    }
    assert_eq!(known(""), None);
    assert_eq!(known("All rights reserved. You may look at this."), None);
}

#[test]
fn wrapping_comments_and_case_do_not_count() {
    for id in ids() {
        let text = text_of(id).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let wrapped = words.chunks(9).map(|line| line.join(" ")).collect::<Vec<_>>();
        for (how, text) in [
            ("one line", words.join(" ")),
            ("comments", wrapped.iter().map(|line| format!(" * {line}\r\n")).collect()),
            ("hashes", wrapped.iter().map(|line| format!("# {line}\n")).collect()),
            ("capitals", text.to_uppercase()),
            ("https", text.replace("http:", "https:")),
        ] {
            assert_eq!(known(&text).as_deref(), Some(id), "{how}: {:?}", recognise(&text));
        }
    }
}

#[test]
fn holders_years_and_titles_do_not_count() {
    let mit = text_of("MIT").unwrap().replace("<year> <copyright holders>", "2015-2020 Some Body <s@body.org>");
    let apache = text_of("Apache-2.0").unwrap();
    let bsd = text_of("BSD-3-Clause").unwrap().replace("the copyright holder nor", "Example University nor");
    for (text, id) in [
        (mit.clone(), "MIT"),
        (mit.replace("MIT License", "The MIT License (MIT)\n=====\n\nSPDX-License-Identifier: MIT"), "MIT"),
        (
            mit.replace(
                "Copyright (c)",
                "Copyright (c) 2001 A\nCopyright (C) 2002 B, Inc. All rights reserved.\nCopyright ©",
            ),
            "MIT",
        ),
        (format!("This project is licensed under the terms of the MIT license.\n\n{mit}"), "MIT"),
        (format!("Copyright 2018- The Hugging Face team. All rights reserved.\n\n{apache}"), "Apache-2.0"),
        (apache.replace("[yyyy] [name of copyright owner]", "2024 Alibaba Cloud"), "Apache-2.0"),
        (apache[..apache.find("APPENDIX").unwrap()].to_string(), "Apache-2.0"),
        (
            apache[..apache.find("   Copyright [yyyy]").unwrap_or(apache.find("Copyright [yyyy]").unwrap())]
                .to_string(),
            "Apache-2.0",
        ),
        (
            format!(
                "Copyright 2016 A B\n\n{}\n\n{apache}",
                &apache[apache.rfind("Licensed under the Apache").unwrap()..]
            ),
            "Apache-2.0",
        ),
        // As Phi's.
        (mit.replace("MIT License", "Microsoft.\nCopyright (c) Microsoft Corporation.\n\nMIT License"), "MIT"),
        (bsd.replace("THE COPYRIGHT HOLDER OR", "EXAMPLE UNIVERSITY OR"), "BSD-3-Clause"),
    ] {
        assert_eq!(known(&text).as_deref(), Some(id), "{:?}\n{:.300}", recognise(&text), text);
    }
}

/// The cases of licensee#274 and scancode-toolkit#4747, and others like them.
#[test]
fn a_condition_more_is_another_licence() {
    let apache = text_of("Apache-2.0").unwrap();
    let mit = text_of("MIT").unwrap();
    let line = "For research and other non-commercial purposes only.";
    let commons = "The Software is provided to you by the Licensor under the License, as defined below, subject to the \
        following condition. Without limiting other conditions in the License, the grant of rights under the License will \
        not include, and the License does not grant to you, the right to Sell the Software.";
    let holder = "<year> <copyright holders>";
    for text in [
        format!("{apache}\n{line}\n"),
        format!("{line}\n{apache}"),
        format!("{apache}\nThe work may not be sold.\n"),
        format!("{commons}\n\n{apache}"),
        format!("\"Commons Clause\" License Condition v1.0\n\n{mit}"),
        with("Apache-2.0", "no-charge, royalty-free,", "no-charge, royalty-free, non-commercial,"),
        with("Apache-2.0", "prepare Derivative Works of, ", ""),
        format!("This model may not be used commercially. Otherwise:\n{apache}"),
        format!("{mit}\n{line}"),
        mit.replace("free of charge, to", "free of charge, for non-commercial use, to"),
        mit.replace("sublicense, and/or sell", "sublicense, but not sell"),
        mit.replace(
            "included in all",
            "included in all, and the Software must serve good ends, never bad ones, in all",
        ),
        mit.replace(holder, "2020 A, for research only"),
        mit.replace(holder, "2020 A. Commercial use needs a licence"),
        mit.replace(holder, "2020 A\nNot for use by companies"),
        mit.replace(holder, "2020 A, CC BY-NC 4.0"),
        mit.replace(holder, "2020 A, AGPL v3"),
        mit.replace(holder, "2020 A (Polyform Strict)"),
        mit.replace(holder, "2020 A, Proprietary and Confidential"),
        mit.replace(holder, "2020 A; see EULA"),
        mit.replace(holder, "2020 A, Patent Pending"),
        mit.replace(holder, "2020 A and contributors who forbid selling"),
        mit.replace(holder, "2020 A. Kommerzielle Nutzung verboten"),
        mit.replace(holder, "2020 A. Uso comercial prohibido"),
        mit.replace(holder, "2020 A. Uso commerciale vietato"),
        mit.replace(holder, "2020 A 仅限非商业用途"),
        mit.replace("and/or sell", "~~and/or sell~~"),
        mit.replace("and/or sell", "<!-- and/or sell -->"),
        format!("A\nThe good\n{}", mit.replace(holder, "2020 A")),
        with("MIT", "THE AUTHORS OR COPYRIGHT HOLDERS", "THE AUTHORS, WHO FORBID SALE AND MUST BE PAID,"),
        with(
            "BSD-3-Clause",
            "the copyright holder nor",
            "the copyright holder, without whose permission sale is prohibited, nor",
        ),
        with("BSD-2-Clause", "with or without modification", "without modification"),
        with("MPL-2.0", "world-wide, royalty-free, non-exclusive", "royalty-free, non-exclusive"),
        with("CC-BY-4.0", "irrevocable", "revocable"),
        with("ISC", "for any purpose", "for any peaceful purpose"),
        with("Unlicense", "commercial or non-commercial", "non-commercial"),
        with("CC0-1.0", "commercial, advertising or promotional purposes", "promotional purposes"),
    ] {
        let found = recognise(&text);
        assert_eq!(found.unchanged(), None, "{text}");
        assert!(found.difference().is_some(), "{text}");
    }
}

#[test]
fn what_was_changed_is_shown() {
    let mit = text_of("MIT").unwrap();
    let found = recognise(&format!("{mit}\nFor research only.\n"));
    assert_eq!(found.difference().unwrap(), "beside the text of MIT it says `For research only`");
    let found = recognise(&mit.replace("free of charge, to", "for a fee, to"));
    let near = found.near.unwrap();
    assert_eq!((near.id, near.line), ("MIT", 5));
    assert!(near.wanted.starts_with("free of charge") && near.found.starts_with("for a fee, to any"), "{near:?}");
}

#[test]
fn two_licences_in_one_file_are_both_reported() {
    let (apache, mit) = (text_of("Apache-2.0").unwrap(), text_of("MIT").unwrap());
    assert_eq!(known(&format!("{mit}\n\n{apache}")).unwrap(), "MIT AND Apache-2.0");
    assert_eq!(known(&format!("{apache}\n---\n{mit}")).unwrap(), "Apache-2.0 AND MIT");
    let found = recognise(&format!("{apache}\nThe letters are by B:\n{mit}\nAnd more."));
    assert_eq!(found.ids, ["Apache-2.0", "MIT"]);
    assert_eq!(found.left_over, ["The letters are by B", "And more"]);
}

/// Ten words out, a clause in, a negation, at several places of every text: none is the licence still.
#[test]
fn no_changed_text_is_recognised() {
    const PLACES: usize = 6;
    let clauses = ["for non-commercial use only", "unless you are paid for it", "and must not be sold"];
    // What is taken out of these may be names of holders, or what the list takes for optional.
    let names = ["HPND", "PostgreSQL", "PSF-2.0", "zlib-acknowledgement"];
    for id in ids() {
        let text = text_of(id).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        // Between the first and the last word that must be there: what is around them may be left out.
        let inner = words.len() / 20..words.len() * 3 / 4;
        for place in 0..PLACES {
            let at = inner.start + place * inner.len() / PLACES;
            let clause: Vec<&str> = clauses[place / 3].split(' ').collect();
            let (with, without): (&[&str], usize) = match place % 3 {
                0 => (&clause, 0),
                1 => (&["not"], 0),
                _ if names.contains(&id) => continue,
                _ => (&[], 10),
            };
            let changed = [&words[..at], with, &words[(at + without).min(words.len())..]].concat().join(" ");
            let found = recognise(&changed);
            let place = words[at.saturating_sub(8)..at + 8].join(" ");
            assert_ne!(
                found.unchanged().as_ref().map(License::as_str),
                Some(id),
                "{with:?} for {without} words: {place}"
            );
        }
    }
}
