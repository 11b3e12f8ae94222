//! What is known of a device by measurement: its rates, and the times of recipes on it.

use std::collections::BTreeMap;

use crate::kernels::Run;
use crate::kernels::elements::Element;
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::shape::Shape;
use crate::planner::model::{DeviceModel, Rates};
use crate::problem::{Operation, Problem};

/// Measurements of one device. Empty until the device was probed or tuned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// What a probe found.
    pub rates: Option<Rates>,
    /// Of each run that was tuned (by [`run_name`]) each recipe that gave right results, and its seconds.
    pub runs: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Profile {
    /// The model of the device: that of its caps, at the rates that were measured.
    pub fn device_model(&self, caps: &Caps) -> DeviceModel {
        let guessed = DeviceModel::of(caps);
        DeviceModel { rates: self.rates.unwrap_or(guessed.rates), ..guessed }
    }

    /// The measured times of a run's recipes, if it was tuned.
    pub fn times(&self, run: &Run<'_>) -> Option<&BTreeMap<String, f64>> {
        // Names cost more than looking whether there are any.
        if self.runs.is_empty() { None } else { self.runs.get(&run_name(run)) }
    }

    /// Takes over what another profile of the same device knows. Where both have a time the lower one stays: what
    /// disturbs a measurement makes it longer. The other's rates replace these.
    pub fn merge(&mut self, other: Self) {
        self.rates = other.rates.or(self.rates);
        for (run, times) in other.runs {
            let known = self.runs.entry(run).or_default();
            for (recipe, seconds) in times {
                known.entry(recipe).and_modify(|least| *least = least.min(seconds)).or_insert(seconds);
            }
        }
    }
}

/// A run in words: each link as a problem of its own, joined by ` + `. A device whose shaders lack half-precision
/// numbers has others for f16, and other times.
pub fn run_name(run: &Run<'_>) -> String {
    let problems = run.links.iter().zip(run.shapes).map(|(link, &input)| {
        let operation = match link {
            Link::Conv(conv) if conv.is_depthwise() => Operation::Depthwise(conv.clone()),
            Link::Conv(conv) if conv.kernel_size == [1, 1] => Operation::Pointwise(conv.clone()),
            Link::Conv(conv) => Operation::Conv(conv.clone()),
            Link::ConvTranspose(transposed) => Operation::ConvTranspose(transposed.clone()),
            Link::PRelu(prelu) => Operation::PRelu(prelu.clone()),
            Link::PixelShuffle { factor } => Operation::PixelShuffle(*factor),
            Link::PixelUnshuffle { factor } => Operation::PixelUnshuffle(*factor),
            Link::Resize(resize) => Operation::Resize(*resize),
            Link::Slice { channels } => Operation::Slice(channels.clone()),
            Link::Concat(concat) => Operation::Concat(concat.clone()),
            Link::Pool(pool) => Operation::Pool2d(pool.clone()),
            // The same passes, so the same times.
            Link::SqueezeExcite(gate) => Operation::Gate(gate.clone()),
            Link::GlobalAveragePool | Link::PlaneSum { .. } => Operation::Pool,
        };
        let input = match link {
            // Of its problem the input has the channels of all.
            Link::Concat(concat) => Shape { channels: concat.sum(), ..input },
            _ => input,
        };
        Problem { input, layout: run.layout, dtype: run.elements.input.dtype(), operation }.to_string()
    });
    let name = problems.collect::<Vec<_>>().join(" + ");
    if run.elements.input == Element::Words { name + " in words" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elements::Elements;
    use crate::model::dtype::DType;

    #[test]
    fn a_run_has_a_name_for_each_layout_and_element_type() {
        let problem: Problem = "separable 1x4x6x6 -> 8 k3 p1 relu f16 nhwc".parse().unwrap();
        let (chain, layout) = (problem.chain(), problem.layout);
        let shapes = chain.shapes(problem.input).unwrap();
        let caps = |f16| Caps { f16, ..Caps::webgpu() };
        let name = |dtype, f16| {
            let elements = Elements::new(dtype, &caps(f16));
            run_name(&Run { links: chain.links(), shapes: &shapes, layout, elements })
        };
        let (half, single) = (name(DType::F16, true), name(DType::F32, true));
        assert_eq!(half, "depthwise 1x4x6x6 k3 p1 relu f16 nhwc + pointwise 1x4x6x6 -> 8 relu f16 nhwc");
        assert_eq!(single, half.replace(" f16", ""));
        assert_eq!([name(DType::F32, false), name(DType::F16, false)], [single, half + " in words"]);
    }
}
