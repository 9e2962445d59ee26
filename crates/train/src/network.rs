//! The network of a run: whole in this process, or in parts, of which each process has its ranges and puts together only
//! those that are in use (ZeRO's stage 3: Rajbhandari et al., 2020). Knows neither steps nor files.

use crate::{
    fault,
    gradients::{NamedGradients, flat_tensor},
    optimizer::Optimizer,
    selection::Selection,
    stored::{Scratch, Stored},
    world::{Gathering, Part, Pieces, Sums, World},
};
use burn::{module::Module, tensor::Tensor};
use narthex_base::{Error, Result};
use narthex_kernels::HostValues;
use narthex_model::{NewValue, cpu, for_training, put_parameters, take_parameters};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

/// The parameters that a pass through a network is in need of, part by part; which part a parameter belongs to says
/// [`Objective::part`](crate::Objective::part). All processes must make the same calls in the same order.
pub trait Parts<M> {
    /// Begins to put a part together, which will be needed next.
    ///
    /// # Errors
    /// If another process cannot be reached, or has parted from the common path.
    fn ahead(&mut self, part: usize) -> Result<()>;

    /// The network in which the parameters of this part have their values. `tracked`: with gradients for those that are
    /// trained.
    ///
    /// # Errors
    /// As [`Parts::ahead`].
    fn network(&mut self, part: usize, tracked: bool) -> Result<M>;

    /// Gives the gradients of a part's parameters: they are added to those of the step. Once for each part; without any,
    /// from a process that has nothing to do in this round.
    ///
    /// # Errors
    /// As [`Parts::ahead`].
    fn give(&mut self, part: usize, gradients: Option<NamedGradients>) -> Result<()>;
}

/// A network, as a process has it.
pub(crate) enum Network<M> {
    /// With gradients tracked for what is trained.
    Whole(M),
    /// Without gradients.
    Parted(Box<Parted<M>>),
}

/// A network without its values, and this process's ranges of those.
pub(crate) struct Parted<M> {
    skeleton: M,
    /// The trained parameters in the order of the layout, then the others.
    parameters: Vec<Kept>,
    /// How many of them are trained.
    trained: usize,
    /// The numbers of the parameters of each part.
    groups: Vec<Vec<usize>>,
}

struct Kept {
    part: Part,
    shape: Vec<usize>,
    own: Stored,
}

impl<M: Module> Parted<M> {
    /// Keeps of a network this process's ranges, in memory or on the disk.
    pub(crate) fn new(
        network: M,
        layout: &[Part],
        part_of: impl Fn(&str) -> usize,
        rounded: &HashSet<String>,
        world: &dyn World,
        mut scratch: Option<&mut Scratch>,
    ) -> Result<Self> {
        let trained: HashMap<&str, &Part> = layout.iter().map(|part| (part.name.as_str(), part)).collect();
        let shapes = narthex_model::shapes(&network);
        let frozen = shapes.iter().filter(|(name, _)| !trained.contains_key(name.as_str())).enumerate();
        let frozen = frozen.map(|(turn, (name, shape))| Part {
            name: name.clone(),
            len: shape.iter().product(),
            whole: false,
            rounded: false,
            turn,
        });
        let parts = layout.iter().cloned().chain(frozen);
        let parts: Vec<Part> = parts.map(|part| Part { rounded: rounded.contains(&part.name), ..part }).collect();
        let shapes: HashMap<String, Vec<usize>> = shapes.into_iter().collect();
        let (skeleton, mut values) = take_parameters(network.to_device(&cpu()), |_| true);
        let mut parameters = Vec::with_capacity(parts.len());
        for part in parts {
            let missing = || Error::internal(format!("the network has no parameter `{}`", part.name));
            let (values, shape) = values.remove(&part.name).zip(shapes.get(&part.name).cloned()).ok_or_else(missing)?;
            let range = world.range(&part, world.rank());
            // In memory of its own, so that the rest is given up.
            let piece = flat_tensor(HostValues::of(values)[range.clone()].to_vec(), &cpu());
            let mut own = match &mut scratch {
                Some(scratch) => Stored::Disk(scratch.room(range.len())?),
                None => Stored::Memory(Tensor::zeros([0], &cpu())),
            };
            own.set(piece, scratch.as_deref())?;
            parameters.push(Kept { part, shape, own });
        }
        let count = 1 + parameters.iter().map(|kept| part_of(&kept.part.name)).max().unwrap_or(0);
        let mut groups = vec![vec![]; count];
        parameters.iter().enumerate().for_each(|(number, kept)| groups[part_of(&kept.part.name)].push(number));
        Ok(Self { skeleton: skeleton.valid(), parameters, trained: layout.len(), groups })
    }

    fn own(&self, numbers: &[usize], scratch: Option<&Scratch>) -> Result<Pieces> {
        numbers.iter().map(|number| self.parameters[*number].own.tensor(scratch).map(Some)).collect()
    }

    /// What these parameters are, to be put together with all their digits, or for a pass.
    fn parts(&self, numbers: &[usize], exact: bool) -> Vec<Part> {
        let part = |number: &usize| {
            let part = &self.parameters[*number].part;
            Part { rounded: part.rounded && !exact, ..part.clone() }
        };
        numbers.iter().map(part).collect()
    }

    /// Begins to put parameters together for a pass.
    fn begin(&self, numbers: &[usize], world: &dyn World, scratch: Option<&Scratch>) -> Result<Gathering> {
        world.begin_share(self.parts(numbers, false), self.own(numbers, scratch)?)
    }

    /// The network with the values of these parameters.
    fn with(&self, numbers: &[usize], values: Pieces, tracked: bool) -> M {
        let skeleton = self.skeleton.clone();
        let skeleton = if tracked { skeleton.train() } else { skeleton };
        let new = numbers.iter().zip(values).map(|(number, values)| {
            let Kept { part, shape, .. } = &self.parameters[*number];
            // A parameter without a value is one of length 0.
            let values = values.unwrap_or_else(|| Tensor::zeros([part.len], &cpu()));
            (part.name.clone(), NewValue { values, shape: shape.clone(), trained: *number < self.trained })
        });
        put_parameters(skeleton, new.collect())
    }

    fn all(&self) -> Vec<usize> {
        (0..self.parameters.len()).collect()
    }

    /// This process's ranges of the trained weights. They are given to be changed, with [`Parted::put`] after it.
    fn take(&mut self) -> Vec<Stored> {
        let nothing = || Stored::Memory(Tensor::zeros([0], &cpu()));
        let trained = self.parameters[..self.trained].iter_mut();
        trained.map(|kept| std::mem::replace(&mut kept.own, nothing())).collect()
    }

    fn put(&mut self, weights: Vec<Stored>) {
        self.parameters[..self.trained].iter_mut().zip(weights).for_each(|(kept, own)| kept.own = own);
    }
}

/// A range of a flat tensor: on the CPU a view.
fn view(values: &Tensor<1>, range: Range<usize>) -> Tensor<1> {
    match range.len() {
        0 => Tensor::zeros([0], &values.device()),
        len if len == values.dims()[0] => values.clone(),
        _ => values.clone().slice([range]),
    }
}

impl<M: Module> Network<M> {
    /// The network whole, without gradients, at every process.
    pub(crate) fn everywhere(&self, world: &dyn World, scratch: Option<&Scratch>) -> Result<M> {
        match self {
            Self::Whole(network) => Ok(network.valid()),
            Self::Parted(parted) => {
                let all = parted.all();
                let gathering = world.begin_share(parted.parts(&all, true), parted.own(&all, scratch)?)?;
                Ok(parted.with(&all, world.finish_share(gathering)?, false))
            }
        }
    }

    /// The same at rank 0 alone, part by part.
    pub(crate) fn at_first(&self, world: &dyn World, scratch: Option<&Scratch>) -> Result<Option<M>> {
        let parted = match self {
            Self::Whole(network) => return Ok((world.rank() == 0).then(|| network.valid())),
            Self::Parted(parted) => parted,
        };
        let mut found: Pieces = vec![None; parted.parameters.len()];
        for numbers in &parted.groups {
            let pieces = world.collect(parted.parts(numbers, true), parted.own(numbers, scratch)?)?;
            pieces.into_iter().flatten().zip(numbers).for_each(|(piece, number)| found[*number] = piece);
        }
        Ok((world.rank() == 0).then(|| parted.with(&parted.all(), found, false)))
    }

    /// The network without what values it has: what a process that is not rank 0 is left with.
    pub(crate) fn skeleton(&self) -> M {
        match self {
            Self::Whole(network) => network.valid(),
            Self::Parted(parted) => parted.skeleton.clone(),
        }
    }

    /// This process's ranges of the trained weights, to be saved.
    pub(crate) fn own(&self, layout: &[Part], ranges: &[Range<usize>]) -> Vec<Stored> {
        match self {
            Self::Whole(network) => {
                let names: HashSet<&str> = layout.iter().map(|part| part.name.as_str()).collect();
                let (_, mut values) = take_parameters(network.valid(), |name| names.contains(name));
                let own = layout.iter().zip(ranges).map(|(part, range)| match values.remove(&part.name) {
                    Some(values) => view(&values, range.clone()),
                    None => Tensor::zeros([0], &cpu()),
                });
                own.map(Stored::Memory).collect()
            }
            Self::Parted(parted) => parted.parameters[..parted.trained].iter().map(|kept| kept.own.clone()).collect(),
        }
    }

    /// Puts weights in the place of the present ones: of a network in parts this process's ranges, of a whole one all.
    pub(crate) fn set(
        self,
        layout: &[Part],
        weights: Vec<Vec<f32>>,
        selection: &Selection,
        scratch: Option<&Scratch>,
    ) -> Result<Self> {
        match self {
            Self::Whole(network) => {
                let device = network.devices().first().cloned().unwrap_or_else(cpu).inner();
                let shapes: HashMap<String, Vec<usize>> = narthex_model::shapes(&network).into_iter().collect();
                let new = layout.iter().zip(weights).map(|(part, values)| {
                    let shape = shapes.get(&part.name).cloned().unwrap_or_default();
                    (part.name.clone(), NewValue { values: flat_tensor(values, &device), shape, trained: true })
                });
                let network = put_parameters(network, new.collect());
                Ok(Self::Whole(for_training(network, |name| selection.contains(name))))
            }
            Self::Parted(mut parted) => {
                for (kept, values) in parted.parameters.iter_mut().zip(weights) {
                    kept.own.set_values(values, scratch)?;
                }
                Ok(Self::Parted(parted))
            }
        }
    }

    /// Changes the trained weights: `change` is given this process's ranges of them and gives the new ones.
    pub(crate) fn update(
        self,
        layout: &[Part],
        ranges: &[Range<usize>],
        shared: Option<&dyn World>,
        change: impl FnOnce(Vec<Stored>) -> Result<Vec<Stored>>,
    ) -> Result<Self> {
        let network = match self {
            Self::Parted(mut parted) => {
                let weights = parted.take();
                parted.put(change(weights)?);
                return Ok(Self::Parted(parted));
            }
            Self::Whole(network) => network,
        };
        let shapes: HashMap<String, Vec<usize>> = narthex_model::shapes(&network).into_iter().collect();
        let numbers: HashMap<&str, usize> = layout.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
        let (network, mut taken) = take_parameters(network, |name| numbers.contains_key(name));
        let mut own = Vec::with_capacity(layout.len());
        for (part, range) in layout.iter().zip(ranges) {
            let values = taken.remove(&part.name);
            let values = values.ok_or_else(|| Error::internal(format!("the network has lost `{}`", part.name)))?;
            // Moved where all of it is this process's, so that it can be changed in place.
            let whole = range.len() == part.len;
            own.push(Stored::Memory(if whole { values } else { view(&values, range.clone()) }));
        }
        let own = change(own)?.into_iter().map(|stored| stored.tensor(None).map(Some)).collect::<Result<Pieces>>()?;
        let new = match shared {
            None => own,
            Some(world) => world.share(layout, own)?,
        };
        let new = layout.iter().zip(new).map(|(part, values)| {
            let values = values.unwrap_or_else(|| Tensor::zeros([part.len], &cpu()));
            let shape = shapes.get(&part.name).cloned().unwrap_or_default();
            (part.name.clone(), NewValue { values, shape, trained: true })
        });
        Ok(Self::Whole(put_parameters(network, new.collect())))
    }
}

/// A process's own sum of gradients over some micro-batches, part by part, until it is whole.
#[derive(Default)]
pub(crate) struct Held {
    of_parts: HashMap<usize, NamedGradients>,
    /// Whether the pass at hand is the last one that is added to it.
    pub(crate) is_whole: bool,
}

impl Held {
    /// The sum of a part, once it is whole.
    fn with(&mut self, part: usize, gradients: Option<NamedGradients>) -> Option<NamedGradients> {
        let sum = match (self.of_parts.remove(&part), gradients) {
            (Some(mut sum), Some(gradients)) => {
                sum.add(gradients);
                Some(sum)
            }
            (sum, gradients) => sum.or(gradients),
        };
        if self.is_whole {
            return sum;
        }
        sum.into_iter().for_each(|sum| _ = self.of_parts.insert(part, sum));
        None
    }
}

/// The parameters of a round of a step, for a pass.
pub(crate) struct Round<'r, 's, M> {
    pub(crate) network: &'r Network<M>,
    /// The numbers of the trained parameters of each part.
    pub(crate) groups: &'r [Vec<usize>],
    pub(crate) sums: &'r mut (dyn Sums + 's),
    held: &'r mut Held,
    pub(crate) world: &'r dyn World,
    pub(crate) scratch: Option<&'r Scratch>,
    /// Steps taken before.
    step: u64,
    /// The part that is on its way.
    coming: Option<(usize, Gathering)>,
}

impl<'r, 's, M: Module> Round<'r, 's, M> {
    pub(crate) fn new(
        network: &'r Network<M>,
        groups: &'r [Vec<usize>],
        sums: &'r mut (dyn Sums + 's),
        held: &'r mut Held,
        world: &'r dyn World,
        optimizer: &'r Optimizer,
    ) -> Self {
        let scratch = optimizer.scratch.as_ref();
        Self { network, groups, sums, held, world, scratch, step: optimizer.steps, coming: None }
    }
}

impl<M: Module> Parts<M> for Round<'_, '_, M> {
    fn ahead(&mut self, part: usize) -> Result<()> {
        if let Network::Parted(parted) = self.network
            && self.coming.is_none()
        {
            self.coming = Some((part, parted.begin(&parted.groups[part], self.world, self.scratch)?));
        }
        Ok(())
    }

    fn network(&mut self, part: usize, tracked: bool) -> Result<M> {
        fault::point(if tracked && part > 0 { "backward" } else { "forward" }, self.world.rank(), self.step);
        let parted = match self.network {
            Network::Whole(network) if tracked => return Ok(network.clone()),
            Network::Whole(network) => return Ok(network.valid()),
            Network::Parted(parted) => parted,
        };
        let numbers = &parted.groups[part];
        let gathering = match self.coming.take() {
            Some((coming, gathering)) if coming == part => gathering,
            Some((coming, _)) => {
                return Err(Error::internal(format!("part {part} is asked for, and part {coming} comes")));
            }
            None => parted.begin(numbers, self.world, self.scratch)?,
        };
        Ok(parted.with(numbers, self.world.finish_share(gathering)?, tracked))
    }

    fn give(&mut self, part: usize, gradients: Option<NamedGradients>) -> Result<()> {
        fault::point("reduce", self.world.rank(), self.step);
        let gradients = self.held.with(part, gradients);
        if !self.held.is_whole {
            return Ok(());
        }
        // Nothing may be trained in a part.
        self.sums.add(self.groups.get(part).map_or(&[], Vec::as_slice), gradients)
    }
}
