//! Weights that were worked out, not trained, for who has no published ones.

use std::f32::consts::{FRAC_PI_2, PI};

use gpuconv::nets::{Names, Network};
use gpuconv::{Conv2d, OwnedWeights};

/// The weights of an ESPCN of one channel that sharpens and interpolates. Of tanh nothing is seen: values are made so
/// small that it is straight there.
pub fn interpolation(network: &Network) -> Vec<OwnedWeights> {
    const SMALL: f32 = 0.01;
    let zeros = |count: u64| vec![0.0; count as usize];
    let convs: Vec<_> = network.chain.convolutions().map(|(_, conv)| conv).collect();
    let mut weights: Vec<_> = convs.iter().map(|conv| zeros(conv.weight_shape().len())).collect();
    // The picture, and half of what a blur takes away from it.
    for (at, blur) in [1., 2., 1., 2., 4., 2., 1., 2., 1.].into_iter().enumerate() {
        weights[0][at / 3 * 5 + at % 3 + 6] = SMALL * (if at == 4 { 1.5 } else { 0.0 } - 0.5 * blur / 16.0);
    }
    // Nine copies, each moved by a pixel to another side.
    (0..9).for_each(|side| weights[1][side * convs[1].in_channels as usize * 9 + side] = 1.0);
    // Lanczos' kernel of two lobes, of the pixels up to two away: copies moved by one, moved by another.
    let scale = (convs[2].out_channels as f32).sqrt();
    let sinc = |t: f32| if t == 0.0 { 1.0 } else { t.sin() / t };
    let lobes = |t: f32| if t.abs() < 2.0 { sinc(PI * t) * sinc(FRAC_PI_2 * t) } else { 0.0 };
    let share = |phase: usize, distance: i32| {
        let lobes = |distance: i32| lobes(distance as f32 + 0.5 - (phase as f32 + 0.5) / scale);
        lobes(distance) / (-2..=2).map(lobes).sum::<f32>()
    };
    let outputs = convs[2].out_channels as usize;
    for (output, at) in (0..outputs).flat_map(|output| (0..25).map(move |at| (output, at))) {
        let ([y, x], place) = ([at / 5 - 2, at % 5 - 2], |[y, x]: [i32; 2]| ((y + 1) * 3 + x + 1) as usize);
        let copy = [y, x].map(|distance: i32| distance.clamp(-1, 1));
        let at = (output * convs[2].in_channels as usize + place(copy)) * 9 + place([y - copy[0], x - copy[1]]);
        weights[2][at] = share(output / scale as usize, y) * share(output % scale as usize, x) / SMALL;
    }
    let biases = convs.iter().map(|conv| Some(zeros(conv.out_channels.into())));
    weights.into_iter().zip(biases).map(|(weight, bias)| OwnedWeights { weight, bias }).collect()
}

/// Of the drawn picture: sky, sun, sea.
pub const COLOURS: [[f32; 3]; 3] = [[0.87, 0.47, 0.31], [1.0, 0.9, 0.47], [0.24, 0.24, 0.43]];

/// Weights with which each class is a colour, and the nearest one wins. From layer to layer the first three channels
/// stay the mean colours of some pixels, 3 larger than these, where hard swish is straight.
pub fn by_colour(network: &Network) -> Vec<OwnedWeights> {
    let [mean, deviation] = network.pixels;
    let weights = |((_, conv), names): ((usize, &Conv2d), &Names)| {
        let (inputs, size) = ((conv.in_channels / conv.groups) as usize, conv.kernel_size[0] as usize);
        let mut weight = vec![0.0; conv.weight_shape().len() as usize];
        let mut bias = vec![0.0; conv.out_channels as usize];
        // The taps in the middle: one, or of a stride the four that no other output has.
        let middle = size / 2..size / 2 + conv.stride[0] as usize;
        let taps = || middle.clone().flat_map(|y| middle.clone().map(move |x| y * size + x));
        match names.conv.as_str() {
            "classifier.low_classifier" => {
                for (class, colour) in COLOURS.iter().enumerate() {
                    // |c - colour|^2 without |c|^2, negative; c is what comes in, less 3.
                    (0..3).for_each(|channel| weight[class * inputs + channel] = 2.0 * colour[channel]);
                    bias[class] = -colour.iter().map(|value| value * (value + 6.0)).sum::<f32>();
                }
            }
            // Gates are open, and what would be added to an earlier tensor is zero.
            name if name.ends_with("fc2") => bias.fill(3.0),
            name if name.starts_with("classifier") || name.ends_with("fc1") || conv.residual.is_some() => {}
            name => {
                let is_first = name == "backbone.0.0";
                for (channel, tap) in (0..3).flat_map(|channel| taps().map(move |tap| (channel, tap))) {
                    let (scale, add) = if is_first { (deviation[channel], mean[channel] + 3.0) } else { (1.0, 0.0) };
                    weight[(channel * inputs + channel % inputs) * size * size + tap] = scale / taps().count() as f32;
                    bias[channel] = add;
                }
            }
        }
        OwnedWeights { weight, bias: conv.bias.then_some(bias) }
    };
    network.chain.convolutions().zip(&network.torchvision).map(weights).collect()
}
