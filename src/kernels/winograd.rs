//! `winograd`: dense 3x3 convolutions of stride 1 with fewer multiplications. A tile of 2x2 or 4x4 outputs takes 16
//! products in place of 36, or 36 in place of 144; what is saved is paid for in additions and in memory.
//!
//! Three passes: the input's tiles are transformed, multiplied point by point, which is a grouped pointwise
//! convolution, and transformed back (Lavin and Gray, arXiv 1509.09308, whose matrices these are).

use std::fmt::Write as _;

use super::gemm::{self, registers, tiled};
use super::{
    Kernel, Operand, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, fitting, pointwise,
};
use crate::kernels::pack::{self, Packing, winograd};
use crate::kernels::shader::{self, Shader};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::shape::{Layout, Shape};

pub const WINOGRAD: Kernel = Kernel { name: "winograd", links: 1, candidates };

/// Outputs a side of a tile.
const OUTPUTS: &[u32] = &[4, 2];
const WORKGROUP: u32 = 64;
const WORKGROUP_CPU: u32 = 16;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = run.only_conv()?;
    match () {
        () if link.kernel_size != [3, 3] => return Err(Unsupported::KernelSize(link.kernel_size)),
        () if link.stride != [1, 1] => return Err(Unsupported::Stride(link.stride)),
        () if link.dilation != [1, 1] => return Err(Unsupported::Dilation(link.dilation)),
        () if link.groups != 1 => return Err(Unsupported::Groups(link.groups)),
        () => gemm::fills_tiles(link)?,
    }
    let mut recipes = Vec::new();
    for &outputs in OUTPUTS {
        let tiles = Tiles::new(run, link, caps, outputs);
        let product = [tiles.product.clone().into()];
        let run = Run { links: &product, shapes: &tiles.shapes, ..*run };
        recipes.extend(products(&run, caps)?.into_iter().map(|product| tiles.recipe(product)));
    }
    fitting(run, caps, recipes)
}

/// The ways to compute the product of the transformed tensors.
fn products(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = pointwise::source(run, WINOGRAD.name)?;
    if let Ok(blocks) = registers::subgroup_blocks(caps, pointwise::SUBGROUP_BLOCKS) {
        return Ok(blocks.into_iter().map(|block| registers::recipe(run, &source, block)).collect());
    }
    let blocks = registers::uniform_blocks(caps, pointwise::UNIFORM_BLOCKS).unwrap_or_default();
    let by_registers = blocks.into_iter().map(|block| registers::recipe(run, &source, block));
    let by_tiles = tiled::TILES.iter().map(|&tile| tiled::recipe(run, &source, tile, caps));
    Ok(by_tiles.chain(by_registers).collect())
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
    /// Outputs a side of a tile.
    outputs: u32,
    workgroup: u32,
    is_cpu: bool,
    /// Whether two neighbouring inputs are one load, for software devices: they pay by the load.
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
                outputs,
                workgroup: if caps.is_cpu { WORKGROUP_CPU } else { WORKGROUP },
                is_cpu: caps.is_cpu,
                pairs: caps.is_cpu && caps.int64 && run.layout == Layout::Nchw && run.input().width.is_multiple_of(2),
                quads: output.width.is_multiple_of(4),
            },
            count,
            shapes: [shape(product.in_channels), shape(product.out_channels)],
            product,
        }
    }

    fn recipe(&self, product: Recipe) -> Recipe {
        let Transform { ref link, outputs, .. } = self.transform;
        let (weights, bias_at) =
            pack::stand_in(link, &product.weights, |block, k_align, _| Packing::Winograd { outputs, block, k_align });

        let mut passes = vec![self.input_pass()];
        passes.extend(product.passes.into_iter().map(|pass| Pass {
            operands: vec![Operand::ReadWorkspace(0), Operand::Weights, Operand::WriteWorkspace(1)],
            ..pass
        }));
        passes.push(self.output_pass(bias_at));

        let workspace: Vec<_> = self.shapes.iter().map(Shape::bytes).collect();
        let points = f64::from(winograd::points(outputs));
        let [items_in, items_out] = self.items().map(|items| items as f64);
        let loads = f64::from(self.transform.line() * self.transform.row_loads().count() as u32);
        let tensors = self.run.input().bytes() + self.run.output().bytes();
        let variant = product.name.split_once('/').map_or("", |(_, variant)| variant);
        Recipe {
            name: format!("{}/{outputs}x{outputs}-{variant}", WINOGRAD.name),
            passes,
            weights,
            work: Work {
                // An addition counts as half, and the lines of F(4x4) have a dozen.
                mult_adds: product.work.mult_adds + (items_in + items_out) * points * 2.0,
                accesses: product.work.accesses
                    + items_in * (loads + points)
                    + items_out * (points + f64::from(outputs * outputs)),
                // The transformed weights are 16/9 or 4 times the weights.
                bytes: product.work.bytes + workspace.iter().sum::<u64>() as f64 + tensors as f64,
                ..product.work
            },
            workspace,
            // The transforms add what cancels in exact arithmetic, with factors of up to 8 in each direction for
            // F(4x4), so that an output's error has a part from its whole tile.
            tolerance: if outputs == 2 { 16.0 } else { 96.0 },
            // The transforms of F(2x2) are sums and halves; F(4x4) divides by 6 and 24.
            exact: outputs == 2,
            mixes: true,
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
        let wgsl = Wgsl::new(move || transform.of_input());
        self.pass(wgsl, vec![Operand::Input, Operand::WriteWorkspace(0)], self.items()[0])
    }

    fn output_pass(&self, bias_at: u64) -> Pass {
        let transform = self.transform.clone();
        let wgsl = Wgsl::new(move || transform.of_output());
        let mut operands = vec![Operand::ReadWorkspace(1), Operand::Weights, Operand::Output];
        operands.extend(self.run.has_residual().then_some(Operand::Residual));
        let mut pass = self.pass(wgsl, operands, self.items()[1]);
        pass.params.bias_at = bias_at as u32;
        pass
    }
}

impl Transform {
    /// Inputs a side of a tile.
    fn line(&self) -> u32 {
        self.outputs + 2
    }

    fn shader(&self, file: &str, tile: &str) -> Shader {
        Shader::new(file)
            .add(tile)
            .add(match self.outputs {
                2 => include_str!("../../shaders/winograd_2x2.wgsl"),
                _ => include_str!("../../shaders/winograd_4x4.wgsl"),
            })
            .add(match self.layout {
                Layout::Nchw => include_str!("../../shaders/winograd_nchw.wgsl"),
                Layout::Nhwc => include_str!("../../shaders/winograd_nhwc.wgsl"),
            })
            .add(shader::strides(self.layout))
            .constants(&shader::geometry(&self.link))
            .constants(&[
                ("OUTPUTS", self.outputs.into()),
                ("LINE", self.line().into()),
                ("WORKGROUP", self.workgroup.into()),
            ])
    }

    /// The shader that transforms the input.
    fn of_input(&self) -> String {
        let row = if self.pairs { shader::ROW_PAIRS } else { shader::ROW_SCALAR };
        self.shader(include_str!("../../shaders/winograd_input.wgsl"), &self.input_tile())
            .add(row)
            .add(if self.pairs { shader::PAIRS } else { "" })
            .finish_without_epilogue()
    }

    /// The shader that transforms the products.
    fn of_output(&self) -> String {
        let (store, in_quads) = match self.outputs {
            2 => (include_str!("../../shaders/winograd_store_2x2.wgsl"), false),
            _ => (include_str!("../../shaders/winograd_store_4x4.wgsl"), self.layout == Layout::Nchw),
        };
        self.shader(include_str!("../../shaders/winograd_output.wgsl"), &self.output_tile())
            .add(store)
            .add(if in_quads && self.quads { shader::OUTPUT_VEC4 } else { shader::OUTPUT_SCALAR })
            .add(shader::BIASES)
            .add(shader::has_bias(&self.link))
            .finish(&self.link)
    }

    /// How many columns before a tile's first the loads start: pairs start at even ones.
    fn shift(&self) -> u32 {
        if self.pairs { self.link.padding[1] % 2 } else { 0 }
    }

    /// The columns at which the loads of a row start.
    fn row_loads(&self) -> impl Iterator<Item = u32> + use<> {
        (0..self.line() + self.shift()).step_by(if self.pairs { 2 } else { 1 })
    }

    /// `transform_tile` of the input, written out.
    fn input_tile(&self) -> String {
        let (line, shift) = (self.line(), self.shift());
        let mut text = String::from("fn transform_tile(tile: Tile) {\n");
        let load = if self.pairs { "load_padded2" } else { "load_padded" };
        for y in 0..line {
            let _ = writeln!(text, "    let row{y} = input_row(tile, {y});");
            for x in self.row_loads() {
                let _ = writeln!(text, "    let d{y}_{x} = {load}(row{y}, tile.left + {x} - {shift});");
            }
            let value = |x: u32| match (self.pairs, x % 2) {
                (true, 0) => format!("d{y}_{x}.x"),
                (true, _) => format!("d{y}_{}.y", x - 1),
                (false, _) => format!("d{y}_{x}"),
            };
            let values: Vec<_> = (0..line).map(|x| value(x + shift)).collect();
            let _ = writeln!(text, "    let h{y} = input_line(array<f32, LINE>({}));", values.join(", "));
        }
        for x in 0..line {
            let values: Vec<_> = (0..line).map(|y| format!("h{y}[{x}]")).collect();
            let _ = writeln!(text, "    let v{x} = input_line(array<f32, LINE>({}));", values.join(", "));
        }
        let at = |point: &str| format!("point_at({point}, tile.channel, params.in_channels, tile.number)");
        let points = (0..line).flat_map(|y| (0..line).map(move |x| format!("v{x}[{y}]")));
        if self.is_cpu {
            // A store in a loop compiles faster than one for each point.
            let points: Vec<_> = points.collect();
            let _ = writeln!(text, "    var points = array<f32, LINE * LINE>({});", points.join(", "));
            let _ = writeln!(text, "    for (var point = 0u; point < opaque(LINE * LINE); point++) {{");
            let _ = writeln!(text, "        transformed[{}] = points[point];\n    }}", at("point"));
        } else {
            for (number, point) in points.enumerate() {
                let _ = writeln!(text, "    transformed[{}] = {point};", at(&format!("{number}u")));
            }
        }
        text.push_str("}\n");
        text
    }

    /// `transform_tile` of the products, written out.
    fn output_tile(&self) -> String {
        let line = self.line();
        let mut text = String::from("fn transform_tile(tile: Tile) {\n    let bias = bias_of(tile.channel);\n");
        for x in 0..line {
            let point =
                |y| format!("products[point_at({}u, tile.channel, params.out_channels, tile.number)]", y * line + x);
            let values: Vec<_> = (0..line).map(point).collect();
            let _ = writeln!(
                text,
                "    let v{x} = output_line(array<f32, LINE>(\n        {},\n    ));",
                values.join(",\n        ")
            );
        }
        let rows = (0..self.outputs).map(|y| {
            let values: Vec<_> = (0..line).map(|x| format!("v{x}[{y}]")).collect();
            format!("output_line(array<f32, LINE>({}))", values.join(", "))
        });
        let rows: Vec<_> = rows.collect();
        let _ = writeln!(
            text,
            "    store_tile(tile, array<array<f32, OUTPUTS>, OUTPUTS>(\n        {},\n    ), bias);\n}}",
            rows.join(",\n        ")
        );
        text
    }
}
