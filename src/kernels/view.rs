//! Views: tensors that lie in others, where kernels load and store them.
//!
//! A kernel counts the elements of tensors of its own. If one lies in another tensor, `shaders/views.wgsl` says where
//! each of its elements is there, just before it is loaded or stored. So every kernel can do that, and none knows of
//! it.

use minijinja::{Value, context};

use super::channels::CHANNELS;
use super::{Operand, Pass, Recipe, Work, kernel_of};
use crate::model::dtype::DType;
use crate::model::shape::{Layout, Shape};

/// How a tensor lies in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is channels of the other, from this one on.
    Channels { first: u32 },
    /// The other is what a pixel shuffle makes of it.
    Shuffled { factor: u32 },
    /// The other is what a pixel unshuffle makes of it.
    Unshuffled { factor: u32 },
    /// Each pixel of the other is this many rows and columns of it: a resize by the nearest pixel. So it is only read.
    Enlarged { factors: [u32; 2] },
}

/// A tensor that lies in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub place: Place,
    pub layout: Layout,
    /// Its own shape.
    pub shape: Shape,
    /// Channels of the other.
    pub whole: u32,
}

/// The views of the tensors that a pass binds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Views {
    pub input: Option<View>,
    pub output: Option<View>,
    pub residual: Option<View>,
}

/// Loads of each element of an input that may go through a view, for each byte of an element, where that divides by a
/// constant and where it divides by a number of the parameters: as many as take no longer than a copy, which reads and
/// writes the byte. A rule: for each byte that a GPU moves it does about 20 operations, and such a division is about 5
/// or 20.
const MOST_LOADS_OF_BYTE: [f64; 2] = [8.0, 2.0];

impl View {
    /// How many neighbours, the first of which is at a multiple of their number, are so in the other tensor too: 4, 2
    /// or 1.
    pub fn neighbours(&self) -> u32 {
        let Shape { batch, channels, .. } = self.shape;
        let gap = self.whole.saturating_sub(channels);
        let multiples = match (self.place, self.layout) {
            (Place::Channels { first }, Layout::Nchw) => {
                let apart = if batch == 1 { [0; 2] } else { [channels, gap] };
                [first, apart[0], apart[1]].map(|channels| u64::from(channels) * self.shape.pixels())
            }
            (Place::Channels { first }, Layout::Nhwc) => [first, channels, gap].map(u64::from),
            (Place::Enlarged { .. }, Layout::Nhwc) => [channels; 3].map(u64::from),
            (Place::Shuffled { .. } | Place::Unshuffled { .. }, _) | (Place::Enlarged { .. }, Layout::Nchw) => [1; 3],
        };
        let is_whole = |count: &u32| multiples.iter().all(|number| number.is_multiple_of(u64::from(*count)));
        [4, 2].into_iter().find(is_whole).unwrap_or(1)
    }

    /// The most loads of each element that are worth it.
    fn most_loads(&self, dtype: DType) -> f64 {
        let [by_constant, by_parameter] = MOST_LOADS_OF_BYTE.map(|loads| loads * dtype.bytes() as f64);
        match self.layout {
            Layout::Nchw if self.shape.batch == 1 => f64::INFINITY,
            Layout::Nchw => by_parameter,
            Layout::Nhwc => by_constant,
        }
    }

    /// What `views.wgsl` asks for.
    fn values(&self) -> Value {
        let channels = self.shape.channels;
        let (kind, first, [rows, columns]) = match self.place {
            Place::Channels { first } => ("channels", first, [1; 2]),
            Place::Shuffled { factor } => ("shuffled", 0, [factor; 2]),
            Place::Unshuffled { factor } => ("unshuffled", 0, [factor; 2]),
            Place::Enlarged { factors } => ("enlarged", 0, factors),
        };
        context! {
            kind,
            is_nchw => self.layout == Layout::Nchw,
            is_single => self.shape.batch == 1,
            channels,
            whole => self.whole,
            squared => rows.saturating_mul(columns),
            first,
            gap => self.whole.saturating_sub(channels),
            rows,
            columns,
            neighbours => self.neighbours(),
        }
    }
}

impl Views {
    /// Whether no tensor lies in another.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What `tensors.wgsl` asks for.
    pub fn values(&self) -> Value {
        let values = |view: Option<View>| view.map_or(Value::from(false), |view| view.values());
        context! {
            input_view => values(self.input),
            output_view => values(self.output),
            residual_view => values(self.residual),
        }
    }
}

impl Recipe {
    /// Whether a pass can load or store a tensor, of elements of a type, where it lies, and in less time than a copy
    /// would take.
    pub(crate) fn can_view(&self, pass: &Pass, operand: Operand, view: &View, dtype: DType) -> bool {
        match (operand, view.place) {
            (Operand::Input | Operand::Part(_), Place::Channels { .. }) => {
                let is_copy = kernel_of(&self.name) == CHANNELS.name;
                let loads = if is_copy { 1.0 } else { self.work.accesses / (view.shape.len() as f64).max(1.0) };
                pass.wgsl.input_neighbours() <= view.neighbours() && loads <= view.most_loads(dtype)
            }
            // An enlarged tensor is only read.
            (Operand::Output | Operand::Kept(_), place) => !matches!(place, Place::Enlarged { .. }),
            (Operand::Residual, Place::Channels { .. } | Place::Enlarged { .. }) => true,
            _ => false,
        }
    }

    /// The same without passes that copy what lies in place. Its passes each move `params.work` values.
    pub(crate) fn without(&self, is_in_place: impl Fn(usize) -> bool) -> Self {
        let values = |passes: &[Pass]| passes.iter().map(|pass| f64::from(pass.params.work)).sum::<f64>();
        let kept = self.passes.iter().enumerate().filter(|&(number, _)| !is_in_place(number));
        let passes: Vec<_> = kept.map(|(_, pass)| pass.clone()).collect();
        let share = values(&passes) / values(&self.passes).max(1.0);
        let Work { mult_adds, accesses, shared, bytes } = self.work;
        let work = Work { mult_adds: mult_adds * share, accesses: accesses * share, shared, bytes: bytes * share };
        Self { passes, work, ..self.clone() }
    }

    /// The same, but the tensors that have a view lie in others.
    pub(crate) fn viewed(&self, view_of: impl Fn(Operand) -> Option<View>) -> Self {
        Self { passes: self.passes.iter().map(|pass| pass.viewed(&view_of)).collect(), ..self.clone() }
    }
}

impl Pass {
    fn viewed(&self, view_of: impl Fn(Operand) -> Option<View>) -> Self {
        let (mut views, mut params) = (Views::default(), self.params);
        for &operand in &self.operands {
            let Some(view) = view_of(operand) else { continue };
            let pixels = view.shape.pixels() as u32;
            if matches!(operand, Operand::Input | Operand::Part(_)) {
                (views.input, params.view_in_pixels) = (Some(view), pixels);
                continue;
            }
            // A residual has the shape of the output.
            (params.view_out_pixels, params.view_out_width) = (pixels, view.shape.width);
            let views = if operand == Operand::Residual { &mut views.residual } else { &mut views.output };
            *views = Some(view);
        }
        Self { wgsl: self.wgsl.with_views(views), params, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_stay_where_all_that_moves_them_is_a_multiple() {
        let neighbours =
            |place, layout, shape: [u32; 4], whole| View { place, layout, shape: shape.into(), whole }.neighbours();
        let channels = |first, layout, shape| neighbours(Place::Channels { first }, layout, shape, 16);
        assert_eq!([0, 4, 6, 7].map(|first| channels(first, Layout::Nhwc, [2, 8, 3, 3])), [4, 4, 2, 1]);
        assert_eq!([8, 6, 5].map(|count| channels(4, Layout::Nhwc, [1, count, 3, 3])), [4, 2, 1]);
        // By planes, whose pixels count; in a single image only where the first is.
        assert_eq!([0, 2, 3, 4].map(|first| channels(first, Layout::Nchw, [1, 3, 3, 3])), [4, 2, 1, 4]);
        assert_eq!([4, 6, 7].map(|count| channels(4, Layout::Nchw, [2, count, 3, 3])), [4, 2, 1]);
        assert_eq!(channels(3, Layout::Nchw, [2, 7, 2, 2]), 4);
        assert_eq!(neighbours(Place::Shuffled { factor: 2 }, Layout::Nhwc, [1, 8, 4, 4], 2), 1);
        let enlarged =
            |layout, channels| neighbours(Place::Enlarged { factors: [2; 2] }, layout, [1, channels, 4, 4], 8);
        assert_eq!([(Layout::Nhwc, 8), (Layout::Nhwc, 6), (Layout::Nchw, 8)].map(|(a, b)| enlarged(a, b)), [4, 2, 1]);
    }
}
