//! How many instructions a GPU executes for a multiply-add: what compilers made of each recipe's loop.

mod counted;

use crate::kernels::{Run, kernel_of, phases};
use crate::model::dtype::DType;
use crate::model::gpu::GpuKind;
pub use counted::{COUNTED, HALVES};

/// Instructions for each multiply-add where nothing was counted.
const UNKNOWN: f64 = 2.0;

/// Of a recipe for a run: what was counted for the same recipe, layout, kernel and stride; or else the mean of those
/// that agree in as many of them as possible, in this order. Phases have the loop of the product that computes them.
pub fn per_multiply_add(recipe: &str, run: &Run<'_>, kind: GpuKind) -> f64 {
    let product = phases::product_of(recipe);
    let recipe = product.as_deref().unwrap_or(recipe);
    let key = key(recipe, run);
    let words = key.match_indices(' ').map(|(at, _)| &key[..=at]);
    let mut prefixes: Vec<&str> = words.collect();
    prefixes.push(&key);
    let kernel = format!("{}/", kernel_of(recipe));
    prefixes.insert(0, &kernel);
    let counted = prefixes.iter().rev().find_map(|prefix| mean(prefix, kind)).unwrap_or(UNKNOWN);
    let in_f32 = with_depthwise_half(counted, recipe, run, kind);
    match run.elements.input.dtype() {
        DType::F32 => in_f32,
        DType::F16 => in_f32 * of_halves(recipe, run, kind),
    }
}

/// The loop that is counted of `separable` is the product's. Each value that a tile's output channels share is computed
/// by the depthwise half, with as many instructions as in `depthwise`.
fn with_depthwise_half(of_product: f64, recipe: &str, run: &Run<'_>, kind: GpuKind) -> f64 {
    let tile = recipe.strip_prefix("separable/").and_then(|tile| tile.split('x').next()?.parse::<f64>().ok());
    match (tile, run.links.first().and_then(|link| link.conv())) {
        (Some(channels), Some(depthwise)) => {
            let taps = depthwise.fan_in() as f64;
            let of_depthwise = mean("depthwise/", kind).unwrap_or(UNKNOWN);
            (of_product * channels + of_depthwise * taps) / (channels + taps)
        }
        _ => of_product,
    }
}

/// How many instructions a recipe's loop has in half precision for each in f32: some GPUs convert what they load.
fn of_halves(recipe: &str, run: &Run<'_>, kind: GpuKind) -> f64 {
    let name = format!("{recipe} {}", run.layout);
    let row = HALVES.binary_search_by(|(known, _)| known.cmp(&&name[..])).map(|place| HALVES[place].1);
    row.ok().and_then(|row| of(row, kind)).unwrap_or(1.0)
}

/// What a row is called: `separable/64x64x16 nchw k3x3 s2`.
pub fn key(recipe: &str, run: &Run<'_>) -> String {
    let convs = run.links.iter().filter_map(|link| link.conv());
    let largest = convs.max_by_key(|conv| conv.kernel_size[0].saturating_mul(conv.kernel_size[1]));
    match largest {
        Some(conv) => {
            let [[height, width], stride] = [conv.kernel_size, conv.stride];
            format!("{recipe} {} k{height}x{width} s{}", run.layout, stride[1])
        }
        None => format!("{recipe} {}", run.layout),
    }
}

/// The geometric mean of the rows whose names start with some words.
fn mean(prefix: &str, kind: GpuKind) -> Option<f64> {
    let first = COUNTED.partition_point(|(name, _)| *name < prefix);
    let rows: Vec<f64> = COUNTED[first..]
        .iter()
        .take_while(|(name, _)| name.starts_with(prefix))
        .filter_map(|(_, hundredths)| of(*hundredths, kind))
        .collect();
    let logarithms: f64 = rows.iter().map(|row| row.ln()).sum();
    (!rows.is_empty()).then(|| (logarithms / rows.len() as f64).exp())
}

/// The number of a kind of GPU, from those of AMD, NVIDIA, Adreno and Apple in hundredths, where 0 is for none.
fn of(hundredths: [u16; 4], kind: GpuKind) -> Option<f64> {
    let [amd, nvidia, adreno, apple] = hundredths.map(f64::from);
    let number = match kind {
        GpuKind::AmdDiscrete | GpuKind::AmdIntegrated => amd,
        GpuKind::Nvidia => nvidia,
        GpuKind::Adreno => adreno,
        GpuKind::Apple => apple,
        // Their compilers are not here. The mean of the others.
        _ => {
            let known: Vec<f64> = [amd, nvidia, adreno, apple].into_iter().filter(|number| *number > 0.0).collect();
            known.iter().sum::<f64>() / known.len().max(1) as f64
        }
    };
    (number > 0.0).then_some(number / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elements::Elements;
    use crate::problem::Problem;

    /// Some GPUs convert halves in the loop, others check fewer loads. What `depthwise` rounds there is counted apart.
    #[test]
    fn halves_have_instructions_of_their_own() {
        let share = |recipe: &str, line: &str, kind: GpuKind| {
            let problem: Problem = line.parse().unwrap();
            let (chain, shapes) = (problem.chain(), problem.chain().shapes(problem.input).unwrap());
            let of = |dtype| {
                let elements = Elements::new(dtype, &kind.caps());
                let run = Run { links: chain.links(), shapes: &shapes, layout: problem.layout, elements };
                per_multiply_add(recipe, &run, kind)
            };
            of(DType::F16) / of(DType::F32)
        };
        let pointwise = "pointwise 1x32x56x56 -> 64 nhwc";
        assert!(share("pointwise_uniform/8x4", pointwise, GpuKind::Adreno) > 1.2);
        assert!(share("pointwise_uniform/8x4", pointwise, GpuKind::Apple) < 0.8);
        assert!(share("pointwise/64x64x16", pointwise, GpuKind::Adreno) < 1.1);
        assert_eq!(share("depthwise/4x4", "depthwise 1x32x56x56 k3 p1", GpuKind::Adreno), 1.0);
    }

    #[test]
    fn rows_are_in_order_and_plausible() {
        assert!(COUNTED.is_sorted_by(|a, b| a.0 < b.0), "each once, by name");
        for (name, row) in COUNTED {
            assert!(row.iter().all(|number| *number == 0 || (100..10_000).contains(number)), "{name}: {row:?}");
        }
        assert!(HALVES.is_sorted_by(|a, b| a.0 < b.0), "each once, by name");
        for (name, row) in HALVES {
            assert!(row.iter().all(|number| *number == 0 || (50..400).contains(number)), "{name}: {row:?}");
        }
    }
}
