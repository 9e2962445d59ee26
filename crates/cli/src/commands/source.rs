//! A model that is served: where it comes from, how it is to run, and going over to newer versions of it. Knows no flags
//! and no port.

use crate::{
    commands::{
        adapters,
        registry::{FromRegistry, RegistryFlags, announce, name_of, opened},
    },
    style::bytes,
};
use narthex_base::{Digest, Error, Observer, Result};
use narthex_infer::EncoderTask;
use narthex_model::Precision;
use narthex_oci::OciReference;
use narthex_serve::{Ability, Adapters, LabelAbility, Served, Serving, Sizes, TextAbility};
use narthex_shelf::{Follow, FollowMove, Purpose, Ready, ReadyEncoder, ReadyOptions, ReadyText, Shelf, Shown};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often `--follow` looks whether there is a new version.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);

/// How often it asks a registry at most.
const REGISTRY_INTERVAL: Duration = Duration::from_secs(30);

/// Where a model comes from and how it is to run.
pub(super) struct Source {
    pub shelf: Shelf,
    pub reference: String,
    /// What it is called; its own name otherwise.
    pub name: Option<String>,
    pub options: ReadyOptions,
    /// How it writes calls of tools, if its template does not tell.
    pub call_parser: Option<String>,
    /// The adapters over it that clients may come to have.
    pub adapters: Arc<Adapters>,
    /// Those that are there from the start: a name, and where one lies.
    pub modules: Vec<(String, PathBuf)>,
    /// How registries are reached, and whose signature is asked for.
    pub registry: RegistryFlags,
    /// What a registry said last, and when.
    told: Mutex<Option<(Instant, Digest)>>,
    /// The version that was loaded last; none for a folder.
    version: Mutex<Option<Digest>>,
}

/// What to say about a model once it answers.
pub(super) struct Facts {
    license: String,
    dtype: &'static str,
    /// What it can take.
    about: String,
    /// Tokens of the model's own context, if the cache is too small for it.
    cut: Option<usize>,
}

impl Facts {
    fn new(shown: &Shown, precision: Precision, about: String) -> Self {
        Self {
            license: shown.license.as_ref().map_or("licence undeclared".into(), |license| license.to_string()),
            dtype: if precision == Precision::Bf16 { "bfloat16" } else { "float32" },
            about,
            cut: None,
        }
    }
}

/// When something was made, in seconds since 1970; where that is not known, now.
fn made(created: u64) -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if created == 0 { now() } else { created }
}

impl Source {
    /// A model without adapters under its own name.
    pub fn new(shelf: Shelf, reference: String, options: ReadyOptions) -> Self {
        Self {
            shelf,
            reference,
            name: None,
            options,
            call_parser: None,
            adapters: Arc::default(),
            modules: vec![],
            registry: RegistryFlags::default(),
            told: Mutex::new(None),
            version: Mutex::new(None),
        }
    }

    /// The version that was loaded last; none for a folder.
    fn version(&self) -> Option<Digest> {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the reference names in a registry or a layout; none if it names something else.
    fn remote(&self) -> Result<Option<OciReference>> {
        let is_meant = OciReference::is_meant(&self.reference);
        is_meant.then(|| OciReference::parse(&self.reference)).transpose()
    }

    /// The reference as it is opened here, with the version that it stands for where that is not the shelf's to know: what is in a
    /// registry is fetched first, if its signature and the policy allow.
    pub fn here(&self) -> Result<(String, Option<Digest>)> {
        let Some(reference) = self.remote()? else { return Ok((self.reference.clone(), None)) };
        let interrupt = std::sync::atomic::AtomicBool::new(false);
        let emit = |event| {
            if let narthex_base::Event::Warning { message, .. } = event {
                noteln!("warning: {message}");
            }
        };
        let observer = Observer::new(&emit, &interrupt);
        let from = self.from(&reference);
        let (puller, listing) = from.list(observer)?;
        announce(&reference, &listing);
        let version = listing.manifest.digits().parse().ok();
        let fetched = from.fetch(&puller, listing, observer)?;
        Ok((opened(&fetched.pulled.folder).display().to_string(), version))
    }

    fn from<'a>(&'a self, reference: &'a OciReference) -> FromRegistry<'a> {
        FromRegistry { reference, flags: &self.registry, shelf: &self.shelf, purpose: Purpose::Serve }
    }

    /// The version that the reference stands for now; none for a folder.
    pub fn latest(&self) -> Result<Option<Digest>> {
        let Some(reference) = self.remote()? else { return self.shelf.version(&self.reference) };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, digest)) = *told
            && when.elapsed() < REGISTRY_INTERVAL
        {
            return Ok(Some(digest));
        }
        let (_, listing) = self.from(&reference).list(Observer::silent())?;
        let digest: Digest = listing.manifest.digits().parse().map_err(|error: String| Error::internal(error))?;
        *told = Some((Instant::now(), digest));
        Ok(Some(digest))
    }

    /// Loads the model and starts its engine, if the policy lets it.
    pub fn ready(&self) -> Result<(Served, Facts)> {
        let (reference, fetched) = self.here()?;
        let (served, facts, version) = match self.shelf.ready(&reference, &self.options)? {
            Ready::Text(model) => self.text(*model)?,
            Ready::Encoder(encoder) => self.encoder(*encoder)?,
        };
        let version = fetched.or(version);
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
        Ok((served, facts))
    }

    /// What clients ask for: the name it was given, the repository's, or its own.
    fn name(&self, own: String) -> String {
        let repository = || self.remote().ok().flatten().map(|reference| name_of(&reference));
        self.name.clone().or_else(repository).unwrap_or(own)
    }

    fn text(&self, model: ReadyText) -> Result<(Served, Facts, Option<Digest>)> {
        model.notes.iter().for_each(|note| noteln!("warning: {note}"));
        let (context, tokens) = (model.engine.context(), model.engine.kv_cache_tokens());
        let cache_bytes = model.engine.kv_cache_bytes() as u64;
        let about =
            format!("keys and values take up to {} for {tokens} tokens, {context} a sequence", bytes(cache_bytes));
        let cut = (context < model.context_max).then_some(model.context_max);
        let facts = Facts { cut, ..Facts::new(&model.shown, model.precision, about) };
        let id = self.name(model.name);
        let (config, version) = (model.engine.config(), model.version);
        let (name, width) = if model.precision == Precision::Bf16 { ("BF16", 2) } else { ("F32", 4) };
        let parameters = config.parameters() as u64;
        let bytes = parameters * width;
        let memory_bytes = bytes + cache_bytes;
        let sizes = Sizes { parameters, bytes, memory_bytes, width: config.hidden_size, precision: name.into() };
        let (adapters, call_parser) = (self.adapters.clone(), self.call_parser.clone());
        let ability = Ability::Text(TextAbility { model: model.model, adapters, call_parser });
        let served = Served { id, created: made(model.created), sizes, provenance: model.shown, ability };
        Ok((served, facts, version))
    }

    fn encoder(&self, encoder: ReadyEncoder) -> Result<(Served, Facts, Option<Digest>)> {
        encoder.notes.iter().for_each(|note| noteln!("warning: {note}"));
        if let Some((name, _)) = self.modules.first() {
            return Err(Error::input(format!("`{}` takes no adapters, so not `{name}` either", self.reference))
                .help("adapters change models that write text"));
        }
        let ReadyEncoder { name, version, created, shown, precision, bytes, encoder, labels, chances, .. } = encoder;
        let (context, values) = (encoder.engine.context(), encoder.engine.dimension());
        let (ability, about) = match encoder.engine.task() {
            EncoderTask::Embedding => (
                Ability::Vectors(encoder),
                format!("gives vectors of {values} values for texts of up to {context} tokens"),
            ),
            EncoderTask::Score if values == 1 => {
                (Ability::Scores(encoder), format!("scores pairs of texts of up to {context} tokens"))
            }
            EncoderTask::Score => (
                Ability::Labels(LabelAbility { encoder, names: labels, chances }),
                format!("sorts texts of up to {context} tokens into {values} classes"),
            ),
        };
        let facts = Facts::new(&shown, precision, about);
        let kept = if precision == Precision::Bf16 { "BF16" } else { "F32" };
        let sizes = Sizes { parameters: 0, bytes, memory_bytes: bytes, width: values, precision: kept.into() };
        let id = self.name(name);
        Ok((Served { id, created: made(created), sizes, provenance: shown, ability }, facts, version))
    }

    /// Loads the model with its adapters, says what there is to say, and keeps how it comes back once it has gone.
    ///
    /// # Errors
    /// If something cannot be loaded or may not be served.
    pub fn start(self: &Arc<Self>) -> Result<Arc<Serving>> {
        let begun = Instant::now();
        // What may not be served is better said before a large model is loaded.
        let opened = self.modules.iter().map(|(name, place)| self.adapters.open(name, place));
        let opened: Vec<_> = opened.collect::<Result<_, _>>().map_err(Error::from)?;
        let (served, Facts { license, dtype, about, cut }) = self.ready()?;
        noteln!("serving {} ({license}) in {dtype}, ready after {:.2} s", served.id, begun.elapsed().as_secs_f64());
        for ((name, _), adapter) in self.modules.iter().zip(opened) {
            if *name == served.id {
                return Err(Error::usage(format!("the adapter `{name}` has the name of the model"))
                    .help("give one of them another name: `--lora-modules NAME=PATH`, `--served-model-name NAME`"));
            }
            noteln!("  adapter {name} ({}) from {}", adapters::license_of(adapter.as_ref()), adapter.place().display());
            warn(&self.adapters.add(name, adapter, &served)?);
        }
        noteln!("  {about}");
        if let Some(tokens) = cut {
            noteln!("  the model could hold {tokens} a sequence: raise `--kv-cache-memory-bytes`");
        }
        let again = self.clone();
        // It keeps the name it has.
        let name = served.id.clone();
        let load = move || {
            let begun = Instant::now();
            let (model, Facts { license, .. }) = again.ready()?;
            noteln!("{name} ({license}) is loaded again, after {:.2} s", begun.elapsed().as_secs_f64());
            Ok(Served { id: name.clone(), ..model })
        };
        Ok(Arc::new(Serving::with_load(served, load)))
    }
}

/// Goes over to the versions that the references stand for, as often as `asked` or, with `follow`, as they change. What
/// fails is said; the model that answers goes on.
pub(super) fn reload(models: &[(Arc<Source>, Arc<Serving>)], asked: &Receiver<()>, follow: bool) {
    let mut states: Vec<Follow> = models.iter().map(|(source, _)| Follow::new(source.version())).collect();
    loop {
        let interval = if follow { FOLLOW_INTERVAL } else { Duration::MAX };
        let by_hand = match asked.recv_timeout(interval) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for ((source, serving), state) in models.iter().zip(&mut states) {
            // One that is not in memory is loaded in its newest version as soon as it is asked for.
            if serving.is_loaded() {
                source.renew(serving, state, by_hand);
            }
        }
    }
}

impl Source {
    fn renew(&self, serving: &Serving, state: &mut Follow, by_hand: bool) {
        match state.next(self.latest(), by_hand) {
            FollowMove::Stay => return,
            FollowMove::SayUnknown(error) => {
                noteln!("warning: the model stays as it is: {error}");
                return;
            }
            FollowMove::SayUnchanged => {
                noteln!("{} has no other version: nothing changes", self.reference);
                return;
            }
            FollowMove::Load => {}
        }
        let begun = Instant::now();
        match self.ready() {
            // The name may have gone on since it was looked up.
            Ok((model, Facts { license, .. })) => {
                let version = self.version();
                let digest = version.map_or("its folder".into(), |version| version.short());
                let id = model.id.clone();
                let warnings = self.adapters.warnings(&model);
                serving.replace(model);
                state.loaded(version);
                let seconds = begun.elapsed().as_secs_f64();
                noteln!("new requests go to {id} from {digest} ({license}), ready after {seconds:.2} s");
                warn(&warnings);
            }
            Err(error) => noteln!("warning: the model stays as it is: {error}"),
        }
    }
}

fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| noteln!("warning: {warning}"));
}
