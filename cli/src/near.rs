//! Suggestions for misspelt words.

use clap::builder::PossibleValuesParser;
use gpuconv::nets::NETWORKS;
use gpuconv::{Error, ParseError};

/// The words that problems of links begin with.
const OPERATIONS: &[&str] = &[
    "conv",
    "depthwise",
    "pointwise",
    "separable",
    "transposed",
    "prelu",
    "maxpool",
    "avgpool",
    "pool",
    "gate",
    "resize",
    "pixelshuffle",
    "pixelunshuffle",
    "slice",
    "concat",
];
const OPTIONS: &[&str] = &[
    "relu",
    "relu6",
    "silu",
    "hardswish",
    "sigmoid",
    "hardsigmoid",
    "tanh",
    "gelu",
    "leakyrelu:SLOPE",
    "prelu",
    "clamp:LOW,HIGH",
    "residual",
    "scaled",
    "mean",
    "residual:after",
    "nobias",
    "ceil",
    "excludepad",
    "bilinear",
    "aligned",
    "f32",
    "f16",
    "nhwc",
];

/// The known word that is closest to the wrong one, if any is close enough.
pub fn suggestion(error: &Error) -> Option<&str> {
    match error {
        Error::Parse(ParseError { line, start, end, .. }) => {
            let is_first = line[..*start].trim().is_empty();
            let word = &line[*start..*end];
            let near = if is_first { nearest(word, operations()) } else { nearest(word, OPTIONS.iter().copied()) };
            // A known word is wrong for another reason.
            near.filter(|near| *near != word)
        }
        Error::UnknownKernel { name, known } => nearest(name, known.iter().map(String::as_str)),
        _ => None,
    }
}

/// The words that problems begin with, networks among them.
pub fn operations() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().copied().chain(NETWORKS.iter().map(|(name, ..)| *name))
}

/// Takes the name of a network.
pub fn networks() -> PossibleValuesParser {
    PossibleValuesParser::new(NETWORKS.iter().map(|(name, ..)| *name))
}

/// The closest of the known words, if at most a third of its letters are wrong, missing or extra.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let near = known.map(|known| (strsim::damerau_levenshtein(&word, known), known));
    near.filter(|(distance, known)| 3 * distance <= known.len().max(word.len())).min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let option = |word| nearest(word, OPTIONS.iter().copied());
        assert_eq!(
            ["reul", "ReLU6", "hard_swish", "nhcw", "no_bias"].map(option).map(Option::unwrap),
            ["relu", "relu6", "hardswish", "nhwc", "nobias"]
        );
        assert_eq!(["k3", "s2", "fast", "gelu:tanh", ""].map(option), [None; 5]);
        let operation = |word| nearest(word, operations());
        assert_eq!(
            ["seperable", "conv2d", "mobilenetv2"].map(operation).map(Option::unwrap),
            ["separable", "conv", "mobilenet_v2"]
        );
    }
}
