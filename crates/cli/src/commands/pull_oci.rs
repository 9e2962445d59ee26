//! `narthex pull oci://…`: from a registry, or a layout on disk, into the ledger or a folder.

use super::{
    program, project_flag,
    pull::{Pull, print_declared},
    registry::{Fetched, FromRegistry, announce, name_of, opened},
    shelf,
};
use crate::{render::Renderer, signals, style::Style};
use narthex_base::{Error, Event, License, Observer, Result};
use narthex_ledger::{Artifact, Ledger, check_name};
use narthex_oci::{Listing, OciReference};
use narthex_shelf::{PulledFrom, Purpose, import_source, link_declared, papers_in, pulled_model};
use serde_json::json;
use std::{fs, path::Path, time::Instant};

/// Whether it is a registry, or a layout, that is to be asked.
pub fn is_meant(args: &Pull) -> bool {
    OciReference::is_meant(&args.repository)
}

pub fn run(args: &Pull, style: Style) -> Result<()> {
    let reference = OciReference::parse(&args.repository)?;
    if !args.include.is_empty() {
        return Err(Error::usage("`--include` is for the Hugging Face Hub: from a registry, all of an artifact comes"));
    }
    let license = args.license.as_deref().map(License::parse).transpose()?;
    let name = args.name.clone().unwrap_or_else(|| name_of(&reference));
    if args.to.is_none() {
        check_name(&name)?;
    }
    let interrupt = signals::interrupt_flag()?;
    let renderer = Renderer::new(style, args.output.json);
    let emit = |event| renderer.event(event);
    let observer = Observer::new(&emit, &interrupt).for_step("pull");
    let shelf = shelf(&args.project);
    let from = FromRegistry { reference: &reference, flags: &args.registry, shelf: &shelf, purpose: Purpose::Own };
    let (puller, listing) = from.list(observer)?;
    announce(&reference, &listing);
    if args.dry_run {
        for (path, digest) in listing.checksums() {
            outln!("{path}  {digest}");
        }
        noteln!("next: {} pull {}{}", program(), args.repository, project_flag(&args.project));
        return Ok(());
    }
    let begun = Instant::now();
    renderer.event(Event::StepStarted { step: "pull".into(), kind: reference.to_string(), reason: String::new() });
    let fetched = from.fetch(&puller, listing, observer)?;
    if let Some(to) = &args.to {
        copy(&fetched.pulled.folder, to)?;
        drop(renderer);
        outln!("{}", to.display());
        noteln!("next: {} serve {}", program(), super::place(to));
        return Ok(());
    }
    let ledger = Ledger::open(&args.project.join(".narthex"))?;
    let artifact = take((&ledger, &args.project), &fetched, &name, license, &reference, observer)?;
    let seconds = begun.elapsed().as_secs_f64();
    renderer.event(Event::StepFinished { step: name.clone(), digest: artifact.digest, seconds });
    drop(renderer);
    ledger.take_warnings().iter().for_each(|warning| style.warning(warning));
    let found = artifact.manifest.license();
    if args.output.json {
        outln!(
            "{}",
            json!({
                "type": "pulled", "origin": reference.to_string(), "manifest": fetched.listing.top.to_string(),
                "name": name, "kind": artifact.manifest.kind, "digest": artifact.digest, "license": found,
                "bytes": fetched.listing.bytes(), "network_bytes": fetched.pulled.network_bytes,
                "files": fetched.listing.checksums(),
            })
        );
    } else {
        outln!("{name} = {}", artifact.digest);
    }
    match &found {
        Some(found) => noteln!("licence: {found}"),
        None => style.warning("no licence is declared, so it cannot be passed on; pull it again with `--license SPDX`"),
    }
    print_declared(&artifact.manifest);
    noteln!("next: {} serve {name}{}", program(), project_flag(&args.project));
    Ok(())
}

/// Takes a fetched folder into the ledger: as the very artifact that it was where it has our papers, otherwise as a model whose
/// terms its card and the registry name.
fn take(
    (ledger, project): (&Ledger, &Path),
    fetched: &Fetched,
    name: &str,
    license: Option<License>,
    reference: &OciReference,
    observer: Observer,
) -> Result<Artifact> {
    let place = opened(&fetched.pulled.folder);
    let has_papers = papers_in(&fetched.pulled.folder)?.is_some();
    let source = import_source(&place, project)?;
    source.notes.iter().for_each(|note| observer.warn(note.clone()));
    let origin = format!("{reference}@{}", fetched.listing.top);
    // Papers say more than a registry does.
    let license = license.or_else(|| source.license.clone());
    let license = if has_papers { license } else { license.or_else(|| named(&fetched.listing)) };
    let from = PulledFrom { origin, mirror: None, checksums: fetched.listing.checksums() };
    let mut manifest = pulled_model(source.folder(), name, license, &from)?;
    link_declared(ledger, &mut manifest)?;
    ledger.import(source.folder(), name, manifest)
}

/// The licence that the manifest's annotations name, if it is one that is known.
fn named(listing: &Listing) -> Option<License> {
    listing.licenses.iter().find_map(|text| License::parse(text).ok())
}

/// Copies a fetched folder to a place of the user's.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let fail = |error| Error::io("cannot write", to, error);
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::input(format!("{} is not empty", to.display())).help("name a folder that is new or empty"));
    }
    fs::create_dir_all(to).map_err(fail)?;
    let mut open = vec![from.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| Error::io("cannot read", &folder, error))? {
            let path = entry.map_err(|error| Error::io("cannot read", &folder, error))?.path();
            let Ok(inside) = path.strip_prefix(from) else { continue };
            if path.is_dir() {
                fs::create_dir_all(to.join(inside)).map_err(fail)?;
                open.push(path);
            } else {
                fs::copy(&path, to.join(inside)).map_err(fail)?;
            }
        }
    }
    Ok(())
}
