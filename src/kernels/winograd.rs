//! `winograd`: dense 3x3 convolutions of stride 1 with fewer multiplications. A tile of 2x2 or 4x4 outputs takes 16
//! products instead of 36, or 36 instead of 144. The price is additions and memory.
//!
//! Three passes: the input's tiles are transformed, multiplied point by point, which is a grouped pointwise
//! convolution, and transformed back (Lavin and Gray, arXiv 1509.09308, whose matrices these are).

use minijinja::value::merge_maps;
use minijinja::{Value, context};

use super::gemm::{self, registers, tiled};
use super::{
    Kernel, Operand, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, fitting, pointwise,
};
use crate::kernels::elements::Elements;
use crate::kernels::pack::{self, Packing, Section, winograd};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::shape::{Layout, Shape};

pub const WINOGRAD: Kernel = Kernel { name: "winograd", links: 1, candidates };

/// Outputs a side of a tile.
const OUTPUTS: &[u32] = &[4, 2];
const WORKGROUP: u32 = 64;
const WORKGROUP_CPU: u32 = 16;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = run.only_conv_or_scaled()?;
    match () {
        () if link.kernel_size != [3, 3] => return Err(Unsupported::KernelSize(link.kernel_size)),
        () if link.stride != [1, 1] => return Err(Unsupported::Stride(link.stride)),
        () if link.dilation != [1, 1] => return Err(Unsupported::Dilation(link.dilation)),
        () if link.groups != 1 => return Err(Unsupported::Groups(link.groups)),
        // A software device has nothing to gain from blocks that are not filled.
        () if caps.is_cpu => gemm::fills_tiles(link)?,
        () => {}
    }
    let mut recipes = Vec::new();
    for &outputs in OUTPUTS {
        let tiles = Tiles::new(run, link, caps, outputs);
        let product = [tiles.product.clone().into()];
        // What is transformed is not rounded, nor what is made of it.
        let run = Run { links: &product, shapes: &tiles.shapes, elements: Elements::F32, ..*run };
        recipes.extend(products(&run, caps)?.into_iter().map(|product| tiles.recipe(product)));
    }
    fitting(run, caps, recipes)
}

/// The ways to compute the product of the transformed tensors.
fn products(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = pointwise::source(run, WINOGRAD.name)?;
    if let Ok(blocks) = registers::subgroup_blocks(run, caps, &source.conv, pointwise::SUBGROUP_BLOCKS) {
        return Ok(blocks.into_iter().map(|block| registers::recipe(run, &source, block)).collect());
    }
    let blocks = registers::uniform_blocks(run, caps, pointwise::uniform_blocks(caps)).unwrap_or_default();
    let by_registers =
        registers::recipes(run, caps, &source.conv, &blocks, |block| registers::recipe(run, &source, block));
    let by_tiles = tiled::TILES.iter().map(|&tile| tiled::recipe(run, &source, tile, caps));
    Ok(by_tiles.chain(by_registers.unwrap_or_default()).collect())
}

/// A run cut into tiles.
struct Tiles<'a> {
    run: &'a Run<'a>,
    transform: Transform,
    /// Tiles of an image, down and right.
    count: [u32; 2],
    /// The convolution of the transformed tensors, and their shapes.
    product: Conv2d,
    shapes: [Shape; 2],
}

/// What the shaders of the two transforms are made of.
#[derive(Clone)]
struct Transform {
    link: Conv2d,
    layout: Layout,
    elements: Elements,
    /// Outputs a side of a tile.
    outputs: u32,
    workgroup: u32,
    is_cpu: bool,
    /// Whether two neighbouring inputs are one load.
    pairs: bool,
    /// Whether rows of the output are whole quads.
    quads: bool,
}

impl<'a> Tiles<'a> {
    fn new(run: &'a Run<'a>, link: &Conv2d, caps: &Caps, outputs: u32) -> Self {
        let output = run.output();
        let count = [output.height.div_ceil(outputs), output.width.div_ceil(outputs)];
        let tiles = u64::from(output.batch) * u64::from(count[0]) * u64::from(count[1]);
        let tiles = match run.layout {
            // Whole quads, so that all channels start at one.
            Layout::Nchw => tiles.next_multiple_of(4),
            Layout::Nhwc => tiles,
        };
        let product = winograd::product(link, outputs);
        // More tiles than a u32 counts do not fit into any binding.
        let width = u32::try_from(tiles).unwrap_or(u32::MAX);
        let shape = |channels| Shape { batch: 1, channels, height: 1, width };
        Self {
            run,
            transform: Transform {
                link: link.clone(),
                layout: run.layout,
                elements: run.elements,
                outputs,
                workgroup: if caps.is_cpu { WORKGROUP_CPU } else { WORKGROUP },
                is_cpu: caps.is_cpu,
                pairs: run.elements.input.prefers_pairs(caps)
                    && run.layout == Layout::Nchw
                    && run.input().width.is_multiple_of(2),
                quads: output.width.is_multiple_of(4),
            },
            count,
            shapes: [shape(product.in_channels), shape(product.out_channels)],
            product,
        }
    }

    fn recipe(&self, product: Recipe) -> Recipe {
        let Transform { ref link, outputs, .. } = self.transform;
        let biases = link.bias.then(|| Section::new(0, link, Packing::Bias { block: 1 }, DType::F32));
        let (weights, bias_at) = pack::replacement_sections(&product.weights, biases, |block, k_align, _| {
            Packing::Winograd { outputs, block, k_align }
        });

        let mut passes = vec![self.input_pass()];
        passes.extend(product.passes.into_iter().map(|pass| Pass {
            operands: vec![Operand::ReadWorkspace(0), Operand::Weights, Operand::WriteWorkspace(1)],
            ..pass
        }));
        passes.push(self.output_pass(bias_at));

        let workspace: Vec<_> = self.shapes.iter().map(|shape| shape.bytes(DType::F32)).collect();
        let points = f64::from(winograd::points(outputs));
        let [items_in, items_out] = self.items().map(|items| items as f64);
        // Each tile has one scale, and multiplies all that it loads.
        let loads = f64::from(self.transform.loads()) + if link.scaled { 1.0 } else { 0.0 };
        let scaled = if link.scaled { points } else { 0.0 };
        let run = self.run;
        let tensors = run.input_bytes() + run.output_bytes() + run.residual_bytes() + run.scale_bytes();
        let variant = product.name.split_once('/').map_or("", |(_, variant)| variant);
        Recipe {
            name: format!("{}/{outputs}x{outputs}-{variant}", WINOGRAD.name),
            passes,
            weights,
            work: Work {
                // An addition counts as half, and the lines of F(4x4) have a dozen.
                mult_adds: product.work.mult_adds + (items_in + items_out) * points * 2.0 + items_in * scaled,
                accesses: product.work.accesses
                    + items_in * (loads + points)
                    + items_out * (points + f64::from(outputs * outputs)),
                // The transformed weights are 16/9 or 4 times the weights.
                bytes: product.work.bytes + (workspace.iter().sum::<u64>() + tensors) as f64,
                ..product.work
            },
            workspace,
            // The transforms add what cancels in exact arithmetic, with factors of up to 8 in each direction for
            // F(4x4), so that an output's error has a part from its whole tile.
            tolerance: if outputs == 2 { 16.0 } else { 96.0 },
            // The transforms of F(2x2) are sums and halves; F(4x4) divides by 6 and 24.
            exact: outputs == 2,
            spreads_errors: true,
        }
    }

    /// Invocations of the two transforms.
    fn items(&self) -> [u64; 2] {
        let tiles = u64::from(self.run.output().batch) * u64::from(self.count[0]) * u64::from(self.count[1]);
        [self.run.input(), self.run.output()].map(|shape| tiles * u64::from(shape.channels))
    }

    fn pass(&self, wgsl: Wgsl, operands: Vec<Operand>, items: u64) -> Pass {
        Pass {
            wgsl,
            operands,
            params: Params {
                tiles_y: self.count[0],
                tiles_x: self.count[1],
                work: items as u32,
                ..Params::of(self.run)
            },
            workgroup: self.transform.workgroup,
            workgroups: items.div_ceil(self.transform.workgroup.into()),
            workgroup_memory: 0,
            sums: winograd::points(self.transform.outputs),
            registers: winograd::points(self.transform.outputs) + REGISTERS_FOR_ADDRESSES,
        }
    }

    fn input_pass(&self) -> Pass {
        let transform = self.transform.clone();
        let wgsl = Wgsl::template("winograd_input.wgsl", move || transform.of_input());
        let mut operands = vec![Operand::Input, Operand::WriteWorkspace(0)];
        operands.extend(self.run.is_scaled().then_some(Operand::Scale));
        self.pass(wgsl, operands, self.items()[0])
    }

    fn output_pass(&self, bias_at: u64) -> Pass {
        let transform = self.transform.clone();
        let wgsl = Wgsl::template("winograd_output.wgsl", move || transform.of_output());
        let mut operands = vec![Operand::ReadWorkspace(1), Operand::Weights, Operand::Output];
        operands.extend(self.run.has_residual().then_some(Operand::Residual));
        let mut pass = self.pass(wgsl, operands, self.items()[1]);
        pass.params.bias_at = bias_at as u32;
        pass
    }
}

impl Transform {
    /// What `winograd_input.wgsl` asks for.
    fn of_input(&self) -> Value {
        context! {
            STORES_IN_LOOP => self.is_cpu,
            EARLY => self.early(),
            geometry => shader::geometry_values(&self.link),
            input => if self.pairs { "pair" } else { "scalar" },
            scales => if self.link.scaled { "scalar" } else { "none" },
            weights => "none",
            output => "scalar",
            residual => "none",
            elements => Elements { input: self.elements.input, ..Elements::F32 }.values(),
            ..self.values()
        }
    }

    /// What `winograd_output.wgsl` asks for.
    fn of_output(&self) -> Value {
        let in_quads = self.quads && self.outputs == 4 && self.layout == Layout::Nchw;
        context! {
            bias => self.link.bias,
            geometry => (),
            elements => Elements { output: self.elements.output, ..Elements::F32 }.values(),
            input => "scalar",
            weights => "scalar",
            output => if in_quads { "quads" } else { "scalar" },
            ..merge_maps([self.values(), shader::epilogue_values(&self.link)])
        }
    }

    /// What both ask for. The products' recipes share these shaders.
    fn values(&self) -> Value {
        context! {
            recipe => format!("{}/{outputs}x{outputs}", WINOGRAD.name, outputs = self.outputs),
            layout => shader::layout_name(self.layout),
            OUTPUTS => self.outputs,
            WORKGROUP => self.workgroup,
        }
    }

    /// How many columns before a tile's first the loads start: pairs start at even ones.
    fn early(&self) -> u32 {
        if self.pairs { self.link.padding[1] % 2 } else { 0 }
    }

    /// Loads for a tile.
    fn loads(&self) -> u32 {
        let line = self.outputs + 2;
        line * (line + self.early()).div_ceil(if self.pairs { 2 } else { 1 })
    }
}
