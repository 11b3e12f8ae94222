//! Networks put together link by link, with the names of their tensors.

use super::{Names, Network};
use crate::model::chain::{Chain, Link};
use crate::model::concat::Concat;
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::Result;
use crate::model::gate::SqueezeExcite;
use crate::model::prelu::PRelu;
use crate::model::transposed::ConvTranspose2d;

/// The names that timm and torchvision give. Those of a publisher that does not have the network are left out at the
/// end.
pub type Both = [Names; 2];

/// Means and standard deviations of ImageNet's pixels, and Inception's numbers.
pub const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// A network that is put together.
pub struct Builder {
    links: Vec<Link>,
    edges: Vec<Wanted>,
    names: [Vec<Names>; 2],
    /// Channels of the last tensor.
    pub channels: u32,
}

/// An edge that is added at the end: its tensor and its link.
enum Wanted {
    Input(usize, usize),
    Scale(usize, usize),
    Add(usize, usize, Residual),
    Concat(Vec<usize>, usize),
}

impl Builder {
    /// A network of images with three channels.
    pub fn new() -> Self {
        Self::of_images(3)
    }

    /// A network of images with any number of channels.
    pub fn of_images(channels: u32) -> Self {
        Self { links: Vec::new(), edges: Vec::new(), names: [Vec::new(), Vec::new()], channels }
    }

    /// The last tensor.
    pub fn tensor(&self) -> usize {
        self.links.len()
    }

    /// Adds a convolution of the last tensor.
    pub fn conv(&mut self, conv: Conv2d, names: Both) {
        self.channels = conv.out_channels;
        self.links.push(conv.into());
        self.name(names);
    }

    /// Adds a transposed convolution of the last tensor.
    pub fn transposed(&mut self, transposed: ConvTranspose2d, names: Both) {
        self.channels = transposed.conv.out_channels;
        self.links.push(transposed.into());
        self.name(names);
    }

    /// Puts earlier tensors together. Each comes with the number of its channels.
    pub fn concat(&mut self, parts: &[(usize, u32)]) {
        let (tensors, channels): (Vec<_>, Vec<_>) = parts.iter().copied().unzip();
        let concat = Concat::new(channels);
        self.channels = concat.sum();
        self.edges.push(Wanted::Concat(tensors, self.links.len()));
        self.links.push(concat.into());
    }

    fn name(&mut self, names: Both) {
        self.names.iter_mut().zip(names).for_each(|(all, own)| all.push(own));
    }

    /// Adds a gate of the last tensor, and a convolution of that tensor times the gate.
    pub fn gated(&mut self, gate: SqueezeExcite, of_gate: [Both; 2], conv: Conv2d, names: Both) {
        let tensor = self.tensor();
        self.links.push(gate.into());
        of_gate.into_iter().for_each(|names| self.name(names));
        self.conv_of(tensor, conv, names);
        self.edges.push(Wanted::Scale(tensor + 1, tensor + 1));
    }

    /// Adds a convolution of an earlier tensor.
    pub fn conv_of(&mut self, tensor: usize, conv: Conv2d, names: Both) {
        self.edges.push(Wanted::Input(tensor, self.links.len()));
        self.conv(conv, names);
    }

    /// Adds a link without weights of an earlier tensor.
    pub fn plain_of(&mut self, tensor: usize, link: Link) {
        self.edges.push(Wanted::Input(tensor, self.links.len()));
        self.plain(link);
    }

    /// Has the last link multiply what it reads by an earlier tensor.
    pub fn scale(&mut self, tensor: usize) {
        self.edges.push(Wanted::Scale(tensor, self.links.len().saturating_sub(1)));
    }

    /// Has the last link add an earlier tensor.
    pub fn add(&mut self, tensor: usize, residual: Residual) {
        let link = self.links.len().saturating_sub(1);
        self.edges.push(Wanted::Add(tensor, link, residual));
    }

    /// Adds slopes for what is negative.
    pub fn prelu(&mut self, name: &str) {
        self.links.push(PRelu::new(self.channels).into());
        self.name(alone(name));
    }

    /// Adds a link without weights that keeps the channels.
    pub fn plain(&mut self, link: Link) {
        self.links.push(link);
    }

    /// Adds the mean of each channel, and a linear layer of these.
    pub fn classifier(&mut self, classes: u32, names: [&str; 2]) {
        self.plain(Link::GlobalAveragePool);
        self.linear(classes, Activation::None, names);
    }

    /// Adds a linear layer of a single pixel.
    pub fn linear(&mut self, outputs: u32, activation: Activation, names: [&str; 2]) {
        let conv = Conv2d::pointwise(self.channels, outputs).activation(activation);
        self.conv(conv, names.map(Names::linear));
    }

    /// The network. `torchvision` says whether torchvision has it.
    pub fn network(self, name: &'static str, width: f64, classes: u32, torchvision: bool) -> Result<Network> {
        let mut chain = Chain::new(self.links);
        for edge in self.edges {
            chain = match edge {
                Wanted::Input(tensor, link) => chain.reads(tensor, link)?,
                Wanted::Scale(tensor, link) => chain.scales(tensor, link)?,
                Wanted::Add(tensor, link, residual) => chain.edge(tensor, link, residual)?,
                Wanted::Concat(tensors, link) => chain.concatenates(tensors, link)?,
            };
        }
        let [timm, of_torchvision] = self.names;
        let torchvision = if torchvision { of_torchvision } else { Vec::new() };
        Ok(Network::classifier(name, width, classes, chain, [timm, torchvision]))
    }
}

/// A convolution and the batch norm behind it, by both publishers' names.
pub fn both(timm: [&str; 2], torchvision: [&str; 2]) -> Both {
    [timm, torchvision].map(|[conv, norm]| Names::new("", conv, norm))
}

/// The same behind each publisher's prefix.
pub fn behind([timm, torchvision]: [&str; 2], own: [&str; 2], others: [&str; 2]) -> Both {
    [Names::new(timm, own[0], own[1]), Names::new(torchvision, others[0], others[1])]
}

/// What both publishers call the same, without a batch norm.
pub fn alone(name: &str) -> Both {
    [Names::biased(name), Names::biased(name)]
}
