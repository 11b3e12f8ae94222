//! Writes what `scripts/dawn` reads: shaders as text, and runs of them with their data and the right results.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use gpuconv::gpu::GpuKind;
use gpuconv::internals::{Element, KERNELS, Operand, bounds, fold, half_unit, kernel_of, norm, pack};
use gpuconv::planner::{Pass, Recipe};
use gpuconv::shape::from_nchw;
use gpuconv::verify::Data;
use gpuconv::{Caps, Chain, Choice, DType, Layout, Shape, f16, planner};
use serde_json::{Value, json};

use super::problems;

/// Where the folder is. Cargo makes its parent.
const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/dawn");

/// GPUs with and without subgroups, and software devices. WGSL has no integers of 64 bits, so none of the devices has
/// them. The fourth has subgroups as both software devices of the tests have. The last is a GPU whose shaders have
/// half-precision numbers, for problems in f16.
fn devices() -> [Caps; 5] {
    // With enough registers for every recipe.
    let gpu = GpuKind::OtherDiscrete.typical();
    let caps = |is_cpu, subgroup| Caps { is_cpu, subgroup, gpu, ..Caps::webgpu() };
    let halves = Caps { f16: true, ..caps(false, None) };
    [caps(false, None), caps(false, Some([32, 32])), caps(true, None), caps(true, Some([4, 8])), halves]
}

/// The folder's content. `index.json` gets `shaders`, beside the runs.
#[derive(Default)]
struct Export {
    texts: HashMap<Arc<str>, usize>,
    shaders: Vec<Value>,
    /// The file `data`: all tensors, each different one once.
    data: Vec<u8>,
    places: HashMap<Vec<u8>, usize>,
}

impl Export {
    /// The number of a pass's shader.
    fn shader(&mut self, pass: &Pass, origin: &str) -> usize {
        let text = pass.wgsl.text().unwrap_or_else(|error| panic!("{origin}: {error}"));
        let next = self.texts.len();
        let number = *self.texts.entry(text.clone()).or_insert(next);
        if number == next {
            fs::write(format!("{FOLDER}/{number}.wgsl"), text.as_bytes()).unwrap();
            let written: Vec<_> = pass.operands.iter().map(|operand| operand.is_written()).collect();
            self.shaders.push(json!({ "origin": origin, "written": written }));
        }
        number
    }

    /// Where numbers are in `data`, and their length in bytes.
    fn put<T: bytemuck::Pod>(&mut self, values: &[T]) -> Value {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let at = *self.places.entry(bytes.to_vec()).or_insert_with(|| {
            // Aligned for numbers of eight bytes.
            self.data.resize(self.data.len().next_multiple_of(8), 0);
            self.data.extend_from_slice(bytes);
            self.data.len() - bytes.len()
        });
        json!({ "at": at, "bytes": bytes.len() })
    }
}

/// A recipe for a whole case, and its shaders' numbers.
struct Run {
    case: usize,
    recipe: Recipe,
    shaders: Vec<usize>,
    layout: Layout,
    /// How shaders have the elements.
    element: Element,
}

impl Run {
    /// Runs of one kind do much the same.
    fn kind(&self) -> (&str, String, String) {
        (&self.recipe.name, self.layout.to_string(), format!("{:?}", self.element))
    }
}

#[test]
#[ignore = "writes the folder for scripts/dawn"]
fn write_the_folder_for_dawn() {
    if Path::new(FOLDER).exists() {
        fs::remove_dir_all(FOLDER).unwrap();
    }
    fs::create_dir(FOLDER).unwrap();
    let (mut export, mut runs) = (Export::default(), Vec::new());
    let problems = problems();
    for (case, (name, chain, input, layout)) in problems.iter().enumerate() {
        let is_empty = chain.shapes(*input).unwrap().iter().any(Shape::is_empty);
        let is_half = chain.dtype() == DType::F16;
        for caps in devices().into_iter().filter(|caps| is_half || !caps.f16) {
            let schedule = planner::schedule(chain, *input, *layout, &caps, &Choice::Auto).unwrap();
            for considered in schedule.considered.iter() {
                for recipe in considered.answer.iter().flatten().map(|candidate| candidate.recipe.clone()) {
                    let origin = format!("{} of {name}", recipe.name);
                    let shaders = recipe.passes.iter().map(|pass| export.shader(pass, &origin)).collect();
                    // Parts of chains have cases of their own.
                    if considered.links == chain.links().len() && !is_empty {
                        let element = Element::new(chain.dtype(), &caps);
                        runs.push(Run { case, recipe, shaders, layout: *layout, element });
                    }
                }
            }
        }
    }
    let chosen = choose(&runs, problems.len());
    let kernels: HashSet<_> = chosen.iter().map(|&index| kernel_of(&runs[index].recipe.name)).collect();
    let missing: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).filter(|name| !kernels.contains(name)).collect();
    assert!(missing.is_empty(), "no run of {missing:?}");

    let quick = quick(&runs, &chosen);
    let run = |&index: &usize| {
        let Run { case, recipe, shaders, layout, .. } = &runs[index];
        let (name, chain, input, _) = &problems[*case];
        let mut run = Case::new(name, chain, *input, *layout).run(&mut export, recipe, shaders);
        run["quick"] = quick.contains(&index).into();
        run
    };
    let chosen: Vec<_> = chosen.iter().map(run).collect();
    let index = json!({ "shaders": export.shaders, "runs": chosen });
    fs::write(format!("{FOLDER}/index.json"), index.to_string()).unwrap();
    fs::write(format!("{FOLDER}/data"), &export.data).unwrap();
}

/// Some of the runs: one of each case, and one of each recipe in each layout and element.
fn choose(runs: &[Run], cases: usize) -> Vec<usize> {
    let kind = |index: usize| runs[index].kind();
    let mut taken = HashMap::new();
    let mut chosen = Vec::new();
    for case in 0..cases {
        // The kind that was taken least so far.
        let of_case = (0..runs.len()).filter(|&index| runs[index].case == case);
        if let Some(index) = of_case.min_by_key(|&index| taken.get(&kind(index)).copied().unwrap_or_default()) {
            *taken.entry(kind(index)).or_insert(0) += 1;
            chosen.push(index);
        }
    }
    // The last case of each other kind: the first cases are the smallest.
    chosen.extend((0..runs.len()).rev().filter(|&index| taken.insert(kind(index), 1).is_none()));
    chosen
}

/// Enough in a hurry: one of each kernel and layout, and in f16 one of each kernel and element: those with the shortest
/// shaders, which drivers compile fastest.
fn quick(runs: &[Run], chosen: &[usize]) -> HashSet<usize> {
    let mut best: HashMap<_, (usize, usize)> = HashMap::new();
    for &index in chosen {
        let (name, layout, element) = runs[index].kind();
        let key = (kernel_of(name), if runs[index].element == Element::F32 { layout } else { element });
        let texts = runs[index].recipe.passes.iter().map(|pass| pass.wgsl.text().map_or(0, |text| text.len()));
        let length = texts.sum();
        let least = best.entry(key).or_insert((length, index));
        *least = (*least).min((length, index));
    }
    best.into_values().map(|(_, index)| index).collect()
}

/// A problem with its data.
struct Case<'a> {
    name: &'a str,
    chain: &'a Chain,
    shapes: Vec<Shape>,
    layout: Layout,
    data: Data,
    answer: gpuconv::oracle::Answer,
}

impl<'a> Case<'a> {
    fn new(name: &'a str, chain: &'a Chain, input: Shape, layout: Layout) -> Self {
        let data = Data::random(name, chain, input).unwrap();
        let answer = data.answer(chain, input).unwrap();
        Self { name, chain, shapes: chain.shapes(input).unwrap(), layout, data, answer }
    }

    fn output(&self) -> Shape {
        self.shapes[self.shapes.len() - 1]
    }

    /// A run of a recipe, for the index. Each buffer has a place in `data`, or is filled by the shaders.
    fn run(&self, export: &mut Export, recipe: &Recipe, shaders: &[usize]) -> Value {
        let (last, output) = (self.chain.links().len() - 1, self.output());
        let input = from_nchw(&self.data.input, self.shapes[0], self.layout);
        let weights = self.data.weights();
        let convs: Vec<_> = self.chain.convolutions().map(|(_, conv)| conv).collect();
        let weights = pack::buffer(&convs, &weights, &recipe.weights, self.chain.dtype()).unwrap();
        let residual = match (&self.data.residual, self.chain.source(last)) {
            (Some(residual), _) => from_nchw(residual, output, self.layout),
            (None, Some(0)) => input.clone(),
            _ => Vec::new(),
        };
        let scale = self.data.scale.clone().unwrap_or_default();
        let bounds = bounds(&self.answer, self.chain, &[recipe]);
        let dtype = self.chain.dtype();
        let stored = |export: &mut Export, values: &[f32]| match dtype {
            DType::F16 => export.put(&values.iter().map(|&value| f16::from_f32(value).to_bits()).collect::<Vec<_>>()),
            _ => export.put(values),
        };
        let [input, residual, scale] = [&input, &residual, &scale].map(|values| stored(export, values));
        let mut buffers = vec![input, export.put(&weights), residual, scale];
        buffers.push(json!({ "bytes": output.bytes(dtype) }));
        buffers.extend(recipe.workspace.iter().map(|bytes| json!({ "bytes": bytes })));
        let operands = recipe.passes.iter().flat_map(|pass| &pass.operands);
        let kept = operands.filter_map(|operand| match operand {
            Operand::Kept(link) => Some(json!({ "bytes": self.shapes[link + 1].bytes(dtype) })),
            _ => None,
        });
        buffers.extend(kept);
        let binding = |operand: &Operand| match operand {
            Operand::Input => 0,
            Operand::Weights => 1,
            Operand::Residual => 2,
            Operand::Scale => 3,
            Operand::Output => 4,
            Operand::ReadWorkspace(index) | Operand::WriteWorkspace(index) => 5 + index,
            // No recipe keeps two.
            Operand::Kept(_) => 5 + recipe.workspace.len(),
            other => panic!("{}: {other:?}", recipe.name),
        };
        let passes = recipe.passes.iter().zip(shaders).map(|(pass, shader)| {
            let params: &[u32] = bytemuck::cast_slice(bytemuck::bytes_of(&pass.params));
            let bindings: Vec<_> = pass.operands.iter().map(binding).collect();
            let grid = fold(pass.workgroups, Caps::webgpu().max_workgroups).unwrap();
            json!({ "shader": shader, "params": params, "bindings": bindings, "grid": grid })
        });
        let passes: Vec<_> = passes.collect();
        // By how much the store of each output may change it.
        let stores = |(&value, &bound): (&f64, &f64)| half_unit(value.abs() + bound);
        let half =
            (dtype == DType::F16).then(|| self.answer.values.iter().zip(&bounds).map(stores).collect::<Vec<_>>());
        let half = half.map(|stores| export.put(&in_layout(&stores, output, self.layout)));
        json!({
            "name": format!("{} of {}", recipe.name, self.name),
            "buffers": buffers,
            "output": 4,
            "passes": passes,
            "expected": export.put(&in_layout(&self.answer.values, output, self.layout)),
            "bounds": export.put(&in_layout(&bounds, output, self.layout)),
            "half": half,
            "norm": norm(&self.answer),
        })
    }
}

/// What `from_nchw` does with `f32`.
fn in_layout(values: &[f64], shape: Shape, layout: Layout) -> Vec<f64> {
    if layout == Layout::Nchw {
        return values.to_vec();
    }
    let (channels, pixels) = (shape.channels as usize, shape.pixels() as usize);
    let place = |at: usize| at % channels * pixels + at / channels;
    values.chunks(channels * pixels).flat_map(|image| (0..image.len()).map(|at| image[place(at)])).collect()
}
