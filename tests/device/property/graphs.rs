//! Chains whose links read any earlier tensor, with gates, slices, concatenations, shuffles and enlarged residuals.

use gpuconv::{Activation, Chain, Concat, Conv2d, Link, PRelu, Residual, Resize, Shape, SqueezeExcite};
use proptest::prelude::*;
use proptest::sample::Index;

use super::agrees_with_the_oracle;
use super::draw::{Epilogue, Subject, Window, epilogues, forms, sizes, small_input, windows};

/// What is done to a tensor.
#[derive(Clone, Debug)]
enum Node {
    Pointwise(u32),
    Depthwise(Window),
    Conv(u32, Window),
    /// A convolution and a PReLU, of which the second reads the first.
    Sloped(u32, Window),
    /// A gate, with its number of channels inside, and a pointwise link that is scaled by it.
    Gated(u32, u32),
    /// At most this many channels, from a place on.
    Slice(Index, u32),
    /// The tensor and others whose images are as large.
    Concat(Vec<Index>),
    /// A convolution and a pixel shuffle by two of it, to this many channels.
    Shuffled(u32),
    /// A convolution to half the size, its output enlarged again, and a pointwise link that adds that.
    Enlarged(u32),
}

/// A node, its epilogue, which tensor it reads (the last one if none is said), and which it adds.
type Drawn = (Node, Epilogue, Option<Index>, Index);

fn nodes() -> impl Strategy<Value = Node> {
    prop_oneof![
        3 => (1u32..=20).prop_map(Node::Pointwise),
        2 => windows().prop_map(Node::Depthwise),
        1 => ((1u32..=12), windows()).prop_map(|(channels, window)| Node::Conv(channels, window)),
        1 => ((1u32..=12), windows()).prop_map(|(channels, window)| Node::Sloped(channels, window)),
        2 => ((1u32..=9), (1u32..=20)).prop_map(|(squeezed, outputs)| Node::Gated(squeezed, outputs)),
        1 => (any::<Index>(), 1u32..=12).prop_map(|(first, count)| Node::Slice(first, count)),
        2 => prop::collection::vec(any::<Index>(), 1..=3).prop_map(Node::Concat),
        1 => (1u32..=5).prop_map(Node::Shuffled),
        1 => (1u32..=9).prop_map(Node::Enlarged),
    ]
}

/// Graphs, with one of the tensors that each link reads drawn from all before it.
pub fn graphs() -> impl Strategy<Value = Vec<Subject>> {
    let drawn = (nodes(), epilogues(), prop::option::of(any::<Index>()), any::<Index>());
    (prop::collection::vec(drawn, 2..=5), sizes(), forms()).prop_map(|(drawn, sizes, (layout, dtype))| {
        let make = |sizes| {
            let input = small_input(sizes);
            let chain = linked(input, &drawn).with_dtype(dtype);
            Subject { name: format!("{chain:?} on {input} {layout:?}"), chain, input, layout }
        };
        sizes.iter().map(make).collect()
    })
}

fn linked(input: Shape, drawn: &[Drawn]) -> Chain {
    let (mut links, mut shapes) = (Vec::<Link>::new(), vec![input]);
    let (mut reads, mut scales, mut adds) = (Vec::new(), Vec::new(), Vec::<(usize, usize, Residual)>::new());
    let mut concats = Vec::new();
    for (node, epilogue, tensor, which) in drawn {
        let source = tensor.map_or(shapes.len() - 1, |index| index.index(shapes.len()));
        let shape = shapes[source];
        let is_gate = source > 0 && matches!(links[source - 1], Link::SqueezeExcite(_));
        let conv = match *node {
            Node::Slice(first, count) => {
                let first = first.index(shape.channels as usize) as u32;
                let end = shape.channels.min(first + count);
                reads.push((source, links.len()));
                links.push(Link::Slice { channels: first..end });
                shapes.push(Shape { channels: end - first, ..shape });
                continue;
            }
            Node::Concat(ref others) => {
                let is_equal = |&tensor: &usize| Shape { channels: shape.channels, ..shapes[tensor] } == shape;
                let equal: Vec<_> = (0..shapes.len()).filter(is_equal).collect();
                let others = others.iter().map(|other| equal[other.index(equal.len())]);
                let sources: Vec<_> = std::iter::once(source).chain(others).collect();
                let concat = Concat::new(sources.iter().map(|&tensor| shapes[tensor].channels));
                // With few channels, for the oracle takes long.
                let Some(output) = concat.output_shape(shape).ok().filter(|output| output.channels <= 60) else {
                    continue;
                };
                concats.push((sources, links.len()));
                links.push(concat.into());
                shapes.push(output);
                continue;
            }
            Node::Shuffled(channels) if shape.pixels() <= 400 => {
                reads.push((source, links.len()));
                links
                    .extend([Conv2d::pointwise(shape.channels, 4 * channels).into(), Link::PixelShuffle { factor: 2 }]);
                let [height, width] = [shape.height, shape.width].map(|extent| 2 * extent);
                shapes.extend([Shape { channels: 4 * channels, ..shape }, Shape { channels, height, width, ..shape }]);
                continue;
            }
            Node::Enlarged(channels) if shape.height > 1 && shape.width > 1 => {
                reads.push((source, links.len()));
                let [height, width] = [shape.height, shape.width].map(|extent| extent / 2);
                let resize = Resize::to([shape.height, shape.width]);
                links.extend([Conv2d::new(shape.channels, channels, 2).stride(2).into(), Link::from(resize)]);
                let output = Shape { channels, ..shape };
                shapes.extend([Shape { height, width, ..output }, output]);
                adds.push((shapes.len() - 1, links.len(), Residual::BeforeActivation));
                Conv2d::pointwise(shape.channels, channels)
            }
            Node::Gated(squeezed, outputs) if !is_gate => {
                links.push(SqueezeExcite::new(shape.channels, squeezed).into());
                reads.push((source, links.len() - 1));
                shapes.push(Shape { height: 1, width: 1, ..shape });
                scales.push((shapes.len() - 1, links.len()));
                Conv2d::pointwise(shape.channels, outputs)
            }
            Node::Pointwise(outputs) | Node::Gated(_, outputs) | Node::Shuffled(outputs) | Node::Enlarged(outputs) => {
                Conv2d::pointwise(shape.channels, outputs)
            }
            Node::Depthwise(window) => window.of(Conv2d::depthwise(shape.channels, window.kernel_size)),
            Node::Conv(outputs, window) | Node::Sloped(outputs, window) => {
                window.of(Conv2d::new(shape.channels, outputs, window.kernel_size))
            }
        };
        let is_sloped = matches!(node, Node::Sloped(..));
        let mut conv = epilogue.of(conv);
        if is_sloped {
            conv.activation = Activation::None;
        }
        let Ok(output) = conv.output_shape(shape) else { continue };
        let sources: Vec<_> = (0..shapes.len()).filter(|&tensor| shapes[tensor] == output).collect();
        let is_added = adds.last().is_some_and(|&(_, link, _)| link == links.len());
        if let Some(residual) = conv.residual.take_if(|_| !sources.is_empty() && !is_added) {
            adds.push((sources[which.index(sources.len())], links.len(), residual));
        }
        conv.residual = None;
        reads.push((source, links.len()));
        links.push(conv.into());
        shapes.push(output);
        if is_sloped {
            links.push(PRelu::new(output.channels).into());
            shapes.push(output);
        }
    }
    let links = if links.is_empty() { vec![Conv2d::pointwise(input.channels, 3).into()] } else { links };
    let count = links.len();
    let mut chain = Chain::new(links);
    for (tensor, link) in reads.into_iter().filter(|(_, link)| *link < count) {
        chain = chain.reads(tensor, link).expect("it leads forward");
    }
    for (sources, link) in concats {
        chain = chain.concatenates(sources, link).expect("it leads forward");
    }
    for (tensor, link) in scales {
        chain = chain.scales(tensor, link).expect("it leads forward");
    }
    let add = |chain: Chain, (tensor, link, residual)| chain.edge(tensor, link, residual).expect("it leads forward");
    adds.into_iter().fold(chain, add)
}

#[test]
#[ignore = "takes minutes"]
fn graphs_agree_with_the_oracle() {
    agrees_with_the_oracle(8, graphs());
}
