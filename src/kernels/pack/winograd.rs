//! The weights of Winograd's F(m x m, 3x3): G g G^T, and the grouped product that they are the weights of.

use crate::model::conv::Conv2d;

/// G of F(2x2, 3x3), for the matrices in `shaders/winograd_input.wgsl` and `winograd_output.wgsl`.
const G2: &[[f64; 3]] = &[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
/// G of F(4x4, 3x3), likewise.
const G4: &[[f64; 3]] = &[
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Points of a tile with `outputs` outputs a side.
pub fn points(outputs: u32) -> u32 {
    (outputs + 2) * (outputs + 2)
}

/// The convolution of the transformed tensors: each point of a tile is a group of channels.
pub fn product(conv: &Conv2d, outputs: u32) -> Conv2d {
    let points = points(outputs);
    let channels = |channels: u32| channels.saturating_mul(points);
    Conv2d::pointwise(channels(conv.in_channels), channels(conv.out_channels)).groups(points).bias(false)
}

/// The weights of that convolution, `[point][output channel][input channel]`.
pub fn transform(conv: &Conv2d, weight: &[f32], outputs: u32) -> Vec<f32> {
    let g = if outputs == 2 { G2 } else { G4 };
    let filters = (u64::from(conv.in_channels) * u64::from(conv.out_channels)) as usize;
    let mut transformed = vec![0.0; filters * g.len() * g.len()];
    for (filter, taps) in weight.chunks_exact(9).enumerate() {
        for (y, row) in g.iter().enumerate() {
            for (x, column) in g.iter().enumerate() {
                let terms = (0..9).map(|tap| row[tap / 3] * f64::from(taps[tap]) * column[tap % 3]);
                transformed[(y * g.len() + x) * filters + filter] = terms.sum::<f64>() as f32;
            }
        }
    }
    transformed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_ones_sums_the_rows_of_g() {
        let conv = Conv2d::new(2, 1, 3);
        let weight: Vec<f32> = [1.0; 9].into_iter().chain([0.0; 9]).collect();
        let transformed = transform(&conv, &weight, 2);
        // Rows of G sum to 1, 1.5, 0.5 and 1; the second filter is zero.
        let first: Vec<_> = transformed.iter().step_by(2).copied().collect();
        assert_eq!(first[..8], [1.0, 1.5, 0.5, 1.0, 1.5, 2.25, 0.75, 1.5]);
        assert!(transformed.iter().skip(1).step_by(2).all(|&value| value == 0.0));
    }
}
