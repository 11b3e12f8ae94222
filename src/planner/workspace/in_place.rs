//! Tensors that are made where a pass would copy them to, and that are read where a pass would copy them from.
//!
//! A concatenation copies its tensors, a slice some channels, pixel shuffles and a resize by the nearest pixel single
//! values. No such pass runs if the steps before store each element where it would copy it to ([`Place`]), or those
//! after it load it from where it is. In NCHW the channels of a tensor lie side by side in the concatenation of a
//! single image. If they start at an offset that a binding may have, they are bound there, and shaders know nothing of
//! it. Otherwise kernels go by a [`View`].

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::Part;
use crate::kernels::view::{Place, View};
use crate::kernels::{Operand, Pass, Recipe};
use crate::model::chain::{Chain, Link};
use crate::model::shape::{Layout, Shape};
use crate::planner::Step;

#[cfg(test)]
mod tests;

/// The steps of a chain, with the shapes of its tensors.
#[derive(Clone, Copy)]
pub struct Steps<'a> {
    pub chain: &'a Chain,
    pub shapes: &'a [Shape],
    pub steps: &'a [Step],
}

/// Where a tensor lies that is in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The tensor that has it and lies in no other.
    outermost: usize,
    /// What is bound for it: bytes from the start of that one.
    offset: u64,
    pub bytes: u64,
    /// Where its elements are in what is bound, if not as in a tensor of its own.
    view: Option<View>,
}

/// The tensors that lie in others, and the passes that would copy them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InPlace {
    homes: HashMap<usize, Home>,
    /// Each by its step and its number there.
    copies: HashSet<(usize, usize)>,
    /// The steps that load or store a tensor by a view.
    viewed: HashSet<usize>,
}

/// Where tensors may lie in others.
#[derive(Clone, Copy)]
pub struct Rules {
    pub layout: Layout,
    /// Of the offsets of bindings, bytes.
    pub alignment: u64,
    /// Whether kernels may load and store by views.
    pub has_views: bool,
}

impl InPlace {
    /// The largest tensors first, as many as can lie where they belong.
    pub fn new(steps: Steps<'_>, rules: Rules) -> Self {
        let mut wanted = steps.wanted();
        wanted.sort_by_key(|copied| Reverse(steps.bytes(copied.tensor)));
        let mut search = Search { steps, rules, taken: Vec::new(), found: Self::default() };
        for copied in wanted {
            search.take(copied);
        }
        let has_view = |&(step, number, pass): &(usize, usize, &Pass)| {
            let is_left = !search.found.copies.contains(&(step, number));
            is_left && pass.operands.iter().any(|&operand| search.found.view(steps, step, operand).is_some())
        };
        let viewed = steps.passes().filter(has_view).map(|(step, ..)| step).collect();
        InPlace { viewed, ..search.found }
    }

    /// The recipe of a step without these copies, its tensors where they lie; none if it is as it was.
    pub fn recipe(&self, steps: Steps<'_>, step: usize) -> Option<Recipe> {
        let own = &steps.steps[step].recipe;
        let is_shorter = self.copies.iter().any(|&(other, _)| other == step);
        let shortened = is_shorter.then(|| own.without(|pass| self.copies.contains(&(step, pass))));
        if !self.has_views(step) {
            return shortened;
        }
        let mut recipe = shortened.as_ref().unwrap_or(own).viewed(|operand| self.view(steps, step, operand));
        // Of a residual that was enlarged, only what it was made of is read.
        let residual = Operand::Residual;
        if let Some(View { place: Place::Enlarged { .. }, .. }) = self.view(steps, step, residual)
            && let Some(tensor) = steps.tensor(step, residual)
        {
            let read = self.homes.get(&tensor).map_or(0, |home| home.bytes);
            recipe.work.bytes -= steps.bytes(tensor) as f64 - read as f64;
        }
        Some(recipe)
    }

    /// Whether a step loads or stores a tensor by a view.
    pub fn has_views(&self, step: usize) -> bool {
        self.viewed.contains(&step)
    }

    fn view(&self, steps: Steps<'_>, step: usize, operand: Operand) -> Option<View> {
        self.homes.get(&steps.tensor(step, operand)?)?.view
    }

    /// Where a tensor lies, if that is in another.
    pub fn home(&self, part: Part) -> Option<Home> {
        match part {
            Part::Tensor(tensor) => self.homes.get(&tensor).copied(),
            Part::Scratch(..) => None,
        }
    }

    /// What a part lies in that lies in nothing else, and the bytes from the start of that to what is bound.
    pub fn outermost(&self, part: Part) -> (Part, u64) {
        self.home(part).map_or((part, 0), |home| (Part::Tensor(home.outermost), home.offset))
    }
}

/// A tensor that a pass copies into another one or from one.
#[derive(Clone, Copy)]
struct Copied {
    tensor: usize,
    /// The other.
    whole: usize,
    place: Place,
    /// The step, and the number of the pass there.
    pass: (usize, usize),
}

/// The search for tensors that can lie in others.
struct Search<'a> {
    steps: Steps<'a>,
    rules: Rules,
    taken: Vec<Copied>,
    found: InPlace,
}

impl Search<'_> {
    /// Has a tensor lie in the other, unless something is against it.
    fn take(&mut self, copied: Copied) {
        if self.of(copied.tensor).is_some() || !self.is_simple(&copied) {
            return;
        }
        let before = self.found.clone();
        self.taken.push(copied);
        self.found.copies.insert(copied.pass);
        self.found.homes = self.taken.iter().map(|copied| (copied.tensor, self.home(copied))).collect();
        if !self.steps.passes().all(|pass| self.can_run(pass)) {
            self.taken.pop();
            self.found = before;
        }
    }

    fn of(&self, tensor: usize) -> Option<&Copied> {
        self.taken.iter().find(|copied| copied.tensor == tensor)
    }

    /// Whether a tensor would be channels of channels at most, which are channels. Views know nothing of other places
    /// in places.
    fn is_simple(&self, copied: &Copied) -> bool {
        let is_channels = |other: &&Copied| matches!(other.place, Place::Channels { .. });
        let mut joined = self.taken.iter().filter(|other| other.whole == copied.tensor || other.tensor == copied.whole);
        joined.all(|other| is_channels(&other) && is_channels(&copied))
    }

    fn home(&self, copied: &Copied) -> Home {
        let Copied { tensor, whole: mut outermost, mut place, .. } = *copied;
        while let Some(next) = self.of(outermost) {
            if let (Place::Channels { first }, Place::Channels { first: more }) = (&mut place, next.place) {
                *first += more;
            }
            outermost = next.whole;
        }
        let Steps { chain, shapes, .. } = self.steps;
        let (shape, whole) = (shapes[tensor], shapes[outermost]);
        let (bytes, bytes_of_whole) = (self.steps.bytes(tensor), self.steps.bytes(outermost));
        let is_together = shape.batch == 1 && (self.rules.layout == Layout::Nchw || shape.pixels() == 1);
        if let Place::Channels { first } = place
            && (is_together || shape.channels == whole.channels)
        {
            let offset = Shape { channels: first, ..shape }.bytes(chain.dtype());
            // Words of memory belong to one tensor.
            let is_aligned = offset.is_multiple_of(self.rules.alignment.max(4)) && bytes.is_multiple_of(4);
            if is_aligned && self.steps.is_inner(outermost) {
                return Home { outermost, offset, bytes, view: None };
            }
            if first == 0 {
                return Home { outermost, offset: 0, bytes: bytes_of_whole, view: None };
            }
        }
        let view = View { place, layout: self.rules.layout, shape, whole: whole.channels };
        Home { outermost, offset: 0, bytes: bytes_of_whole, view: Some(view) }
    }

    /// Whether a pass can load and store its tensors where they lie. wgpu allows none to read and write the same
    /// buffer, not even parts of it that are apart.
    fn can_run(&self, (step, number, pass): (usize, usize, &Pass)) -> bool {
        if self.found.copies.contains(&(step, number)) {
            return true;
        }
        let tensors = |writes: bool| {
            let operands = pass.operands.iter().filter(move |operand| operand.is_written() == writes);
            let tensors = operands.filter_map(move |&operand| self.steps.tensor(step, operand));
            tensors.map(|tensor| self.found.outermost(Part::Tensor(tensor)).0)
        };
        let (recipe, dtype) = (&self.steps.steps[step].recipe, self.steps.chain.dtype());
        let can_view = |&operand: &Operand| {
            let view = self.found.view(self.steps, step, operand);
            view.is_none_or(|view| self.rules.has_views && recipe.can_view(pass, operand, &view, dtype))
        };
        pass.operands.iter().all(can_view) && !tensors(false).any(|read| tensors(true).any(|written| written == read))
    }
}

impl<'a> Steps<'a> {
    /// All passes, each with its step and its number there.
    fn passes(self) -> impl Iterator<Item = (usize, usize, &'a Pass)> {
        let passes = |(step, own): (usize, &'a Step)| {
            own.recipe.passes.iter().enumerate().map(move |(number, pass)| (step, number, pass))
        };
        self.steps.iter().enumerate().flat_map(passes)
    }

    /// Whether a tensor is neither the chain's input nor its output.
    fn is_inner(self, tensor: usize) -> bool {
        (1..self.shapes.len() - 1).contains(&tensor)
    }

    fn bytes(self, tensor: usize) -> u64 {
        self.shapes[tensor].bytes(self.chain.dtype())
    }

    /// The tensor of the chain that an operand of a step is, if it is one.
    fn tensor(self, step: usize, operand: Operand) -> Option<usize> {
        let Step { first, links, .. } = self.steps[step];
        match operand {
            Operand::Weights | Operand::ReadWorkspace(_) | Operand::WriteWorkspace(_) => None,
            Operand::Input => Some(self.chain.input_of(first)),
            Operand::Part(place) => self.chain.concatenated(first).get(place).copied(),
            Operand::Scale => self.chain.scale_of(first),
            Operand::Output => Some(first + links),
            Operand::Kept(link) => Some(first + link + 1),
            Operand::Residual => self.chain.added(&(first..first + links)),
        }
    }

    /// What must be in the workspace for an operand of a step, where tensors lie in others, and its bytes; nothing if
    /// it is the caller's or holds weights.
    pub fn part(self, step: usize, operand: Operand, in_place: &InPlace) -> Option<(Part, u64)> {
        if let Operand::ReadWorkspace(which) | Operand::WriteWorkspace(which) = operand {
            return Some((Part::Scratch(step, which), self.steps[step].recipe.workspace[which]));
        }
        let (part, _) = in_place.outermost(Part::Tensor(self.tensor(step, operand)?));
        match part {
            Part::Tensor(tensor) if self.is_inner(tensor) => Some((part, self.bytes(tensor))),
            _ => None,
        }
    }

    /// The tensors that may lie in others.
    fn wanted(self) -> Vec<Copied> {
        let mut wanted = Vec::new();
        for (step, own) in self.steps.iter().enumerate() {
            let (input, output) = (self.chain.input_of(own.first), own.first + own.links);
            let mut may_lie = |pass: usize, tensor: usize, whole: usize, place: Place| {
                if self.is_inner(tensor) {
                    wanted.push(Copied { tensor, whole, place, pass: (step, pass) });
                }
            };
            match &self.chain.links()[own.first] {
                Link::Concat(_) => {
                    let mut first = 0;
                    // The kernel has a pass for each tensor, in their order.
                    for (pass, tensor) in self.chain.concatenated(own.first).into_iter().enumerate() {
                        may_lie(pass, tensor, output, Place::Channels { first });
                        first += self.shapes[tensor].channels;
                    }
                }
                Link::Slice { channels } => may_lie(0, output, input, Place::Channels { first: channels.start }),
                &Link::PixelShuffle { factor } => may_lie(0, input, output, Place::Shuffled { factor }),
                &Link::PixelUnshuffle { factor } => may_lie(0, input, output, Place::Unshuffled { factor }),
                Link::Resize(resize) => {
                    if let Some(factors) = resize.repeats(self.shapes[input], self.shapes[output]) {
                        may_lie(0, output, input, Place::Enlarged { factors });
                    }
                }
                _ => {}
            }
        }
        wanted
    }
}
