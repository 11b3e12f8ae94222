//! Every recipe that the planner can give a GPU, through that GPU's compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use gpuconv::gpu::GpuKind;
use gpuconv::internals::{Elements, Run, kernel_of};
use gpuconv::planner::{self, instructions};
use gpuconv::{Caps, Choice, DType, Problem};

use crate::Result;
use crate::compile::{self, Compiled, Options};
use crate::driver::Gpu;

/// Problems of all kinds. The layers of ResNet-18 are problems of their own.
const PROBLEMS: &str = include_str!("problems.txt");
/// The makers whose compilers are here, as the planner's table has them.
const MAKERS: [GpuKind; 4] = [GpuKind::AmdDiscrete, GpuKind::Nvidia, GpuKind::Adreno, GpuKind::Apple];

/// What is behind a key whose tensors are of half precision.
const OF_HALVES: &str = " f16";

/// A row of the planner's tables: a number for each maker.
type Row = [u16; MAKERS.len()];

/// A shader, and what it is for.
struct Shader {
    file: PathBuf,
    /// The recipes and problems that have it, as the planner's table calls them, and which pass it is of each.
    passes: BTreeSet<(String, usize)>,
    /// Whether some problem's best plan has it.
    taken: bool,
}

impl Shader {
    /// What it is for, in words.
    fn list(&self) -> String {
        let keys: BTreeSet<_> = self.passes.iter().map(|(key, _)| key.as_str()).collect();
        keys.into_iter().collect::<Vec<_>>().join(", ")
    }
}

/// What to do with the recipes.
pub struct Wanted {
    /// Compile every shader, also those that differ from another only in numbers.
    pub every: bool,
    /// Compile only those that are picked, and print a line for each.
    pub picks: bool,
    /// Where to write the planner's table.
    pub write: Option<PathBuf>,
}

/// Compiles the recipes and prints what came of it.
pub fn report(gpus: &[&Gpu], problems: &[String], wanted: &Wanted) -> Result<()> {
    let all = problems.is_empty();
    let mut problems: Vec<Problem> = match problems {
        [] => {
            PROBLEMS.lines().filter(|line| !line.is_empty()).map(str::parse).collect::<std::result::Result<_, _>>()?
        }
        problems => problems.iter().map(|problem| problem.parse()).collect::<std::result::Result<_, _>>()?,
    };
    if wanted.write.is_some() {
        // Of half precision the planner's table has how its loops differ.
        let mut halves = problems.clone();
        halves.iter_mut().for_each(|problem| problem.dtype = DType::F16);
        problems.extend(halves);
    }
    let folder = tempfile::tempdir()?;
    let mut rows = Rows::default();
    let (mut spilled, mut compiled) = (Vec::new(), 0);
    for gpu in gpus {
        let own = folder.path().join(gpu.name);
        fs::create_dir(&own)?;
        let shaders = shaders(gpu, &problems, wanted, &own)?;
        let files: Vec<PathBuf> = shaders.values().map(|shader| shader.file.clone()).collect();
        eprintln!("{}: {} shaders", gpu.name, files.len());
        // Two processes, for compilers have one thread.
        let [robust, plain] = std::thread::scope(|scope| {
            let start = |robust| {
                let files = &files;
                scope.spawn(move || {
                    compile::on(gpu, files, Options { asm: false, robust }).map_err(|error| error.to_string())
                })
            };
            let ended = |thread: std::thread::ScopedJoinHandle<'_, std::result::Result<Vec<Compiled>, String>>| {
                thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))
            };
            [start(true), start(false)].map(ended)
        });
        let (robust, plain) = (robust?, plain?);
        for (shader, [robust, plain]) in shaders.values().zip(robust.iter().zip(&plain).map(|(a, b)| [a, b])) {
            compiled += 1;
            if robust.refused.is_some() || robust.spills() || plain.spills() {
                spilled.push(format!("{:<10} {} | {}", gpu.name, robust.line(), shader.list()));
            }
            if shader.taken && wanted.picks {
                print_pick(gpu, shader, robust, plain);
            }
            rows.add(gpu, shader, robust, plain);
        }
    }
    println!("{compiled} shaders, {} with spills", spilled.len());
    spilled.iter().for_each(|line| println!("{line}"));
    print!("{}", rows.table());
    // With problems of one's own the rest of the table stays.
    let kept = if all { [&[][..]; 2] } else { [instructions::COUNTED, instructions::HALVES] };
    match &wanted.write {
        Some(path) => Ok(fs::write(path, rows.planner_tables(kept))?),
        None => Ok(()),
    }
}

fn print_pick(gpu: &Gpu, shader: &Shader, robust: &Compiled, plain: &Compiled) {
    let share = |compiled: &Compiled| 100.0 * compiled.hot.share();
    println!("{:<10} {:>3.0} and {:>3.0} % | {}", gpu.name, share(robust), share(plain), shader.list());
    for compiled in [robust, plain] {
        let hot = &compiled.hot;
        println!(
            "           {} registers; loop of {} with {} inside, {} of memory, {} of workgroup memory: {}",
            compiled.registers,
            hot.instructions,
            hot.loops,
            hot.vmem,
            hot.lds,
            hot.commonest(16),
        );
    }
}

/// The shaders of all recipes for some problems, by their texts, written into a folder: every one, or those that are
/// picked and of the others the first of each name, pass, layout, kernel and stride.
fn shaders(gpu: &Gpu, problems: &[Problem], wanted: &Wanted, folder: &Path) -> Result<BTreeMap<String, Shader>> {
    let caps: Caps = gpu.kind.caps();
    let mut shaders: BTreeMap<String, Shader> = BTreeMap::new();
    for problem in problems {
        let (chain, layout) = (problem.chain(), problem.layout);
        let schedule = planner::schedule(&chain, problem.input, layout, &caps, &Choice::Auto)?;
        let shapes = chain.shapes(problem.input)?;
        for considered in schedule.considered.iter() {
            let end = considered.first + considered.links;
            let run = Run {
                links: &chain.links()[considered.first..end],
                shapes: &chain.run_shapes(considered.first..end, &shapes),
                layout,
                elements: Elements::new(chain.dtype(), &caps),
            };
            for candidate in considered.answer.iter().flatten() {
                let recipe = &candidate.recipe;
                for (index, pass) in recipe.passes.iter().enumerate() {
                    let text = pass.wgsl.text()?.to_string();
                    let number = shaders.len();
                    let shader = shaders.entry(text).or_insert_with(|| Shader {
                        file: folder.join(format!("{number}.wgsl")),
                        passes: BTreeSet::new(),
                        taken: false,
                    });
                    let of_halves = if chain.dtype() == DType::F16 { OF_HALVES } else { "" };
                    shader.passes.insert((instructions::key(&recipe.name, &run) + of_halves, index));
                    shader.taken |= schedule.takes(considered.first, considered.links, &recipe.name);
                }
            }
        }
    }
    if wanted.picks {
        shaders.retain(|_, shader| shader.taken);
    } else if !wanted.every {
        let mut seen = BTreeSet::new();
        shaders.retain(|_, shader| {
            shader.passes.iter().filter(|pass| seen.insert((*pass).clone())).count() > 0 || shader.taken
        });
    }
    for (text, shader) in &shaders {
        fs::write(&shader.file, text)?;
    }
    Ok(shaders)
}

/// What was counted.
#[derive(Default)]
struct Rows {
    /// What the loops have, of each recipe, pass and maker.
    counted: BTreeMap<String, BTreeMap<usize, [Loops; MAKERS.len()]>>,
    /// Shares of multiply-adds, robust and not, of the taken ones, by GPU and kernel.
    shares: BTreeMap<(&'static str, String), Vec<[f64; 2]>>,
    /// Shaders by GPU and kernel, and how many spill.
    spills: BTreeMap<(&'static str, String), [usize; 2]>,
}

/// What the loops of some shaders have.
#[derive(Clone, Copy, Default)]
struct Loops {
    shaders: f64,
    instructions: f64,
    mult_adds: f64,
}

impl Loops {
    /// Multiply-adds of a shader.
    fn of_each(&self) -> f64 {
        self.mult_adds / self.shaders.max(1.0)
    }

    /// Instructions for 100 multiply-adds.
    fn hundredths(&self) -> u16 {
        match self.mult_adds > 0.0 {
            true => (100.0 * self.instructions / self.mult_adds).round().clamp(100.0, 9999.0) as u16,
            false => 0,
        }
    }
}

impl Rows {
    fn add(&mut self, gpu: &Gpu, shader: &Shader, robust: &Compiled, plain: &Compiled) {
        let kernel = shader.passes.first().map_or("", |(key, _)| kernel_of(key)).to_owned();
        let of_kernel = self.spills.entry((gpu.name, kernel.clone())).or_default();
        of_kernel[0] += 1;
        of_kernel[1] += usize::from(robust.spills() || plain.spills());
        if robust.hot.fma == 0 {
            return;
        }
        if shader.taken {
            self.shares.entry((gpu.name, kernel)).or_default().push([robust.hot.share(), plain.hot.share()]);
        }
        let Some(maker) = MAKERS.iter().position(|maker| *maker == gpu.kind) else { return };
        for (key, pass) in &shader.passes {
            let row = &mut self.counted.entry(key.clone()).or_default().entry(*pass).or_default()[maker];
            row.shaders += 1.0;
            row.instructions += robust.hot.instructions as f64;
            row.mult_adds += robust.hot.fma as f64;
        }
    }

    /// Spills and shares, a line for each kernel and a column for each GPU.
    fn table(&self) -> String {
        let gpus: Vec<_> = self.spills.keys().map(|(gpu, _)| *gpu).collect::<BTreeSet<_>>().into_iter().collect();
        let kernels: BTreeSet<_> = self.spills.keys().map(|(_, kernel)| kernel).collect();
        let mut text = String::from("\n| kernel |");
        gpus.iter().for_each(|gpu| _ = write!(text, " {gpu} |"));
        text += "\n| --- |";
        gpus.iter().for_each(|_| text += " --- |");
        for kernel in kernels {
            _ = write!(text, "\n| {kernel} |");
            for gpu in &gpus {
                let key = (*gpu, kernel.clone());
                let [count, spills] = self.spills.get(&key).copied().unwrap_or_default();
                _ = write!(text, " {spills}/{count}");
                if let Some(shares) = self.shares.get(&key) {
                    let least = |which: usize| shares.iter().map(|share| share[which]).fold(1.0, f64::min);
                    _ = write!(text, ", {:.0} and {:.0} %", least(0) * 100.0, least(1) * 100.0);
                }
                text += " |";
            }
        }
        text + "\n\nSpills and shaders of each kernel; of those that are picked, the least share of multiply-adds in the hot \
                loop, with robust buffer access and without.\n"
    }

    /// The planner's tables: these rows, and what was counted that they lack, in numbers too.
    fn planner_tables(&self, [kept, kept_halves]: [&[(&str, Row)]; 2]) -> String {
        // The pass whose loop has the most multiply-adds counts: the product, not what comes before or behind it.
        let counted = self.counted.iter().map(|(key, passes)| {
            let of_maker = |maker: usize| passes.values().map(move |pass| pass[maker]);
            let largest = |maker: usize| of_maker(maker).max_by(|a, b| a.of_each().total_cmp(&b.of_each()));
            let row: Row = std::array::from_fn(|maker| largest(maker).unwrap_or_default().hundredths());
            (key.as_str(), row)
        });
        let (halves, rows) = counted.partition::<BTreeMap<_, _>, _>(|(key, _)| key.ends_with(OF_HALVES));
        let halves = of_halves(&halves, &rows);
        let counted = table("COUNTED", rows.iter().map(|(key, row)| (*key, *row)), kept);
        let halves = table("HALVES", halves.iter().map(|(name, row)| (name.as_str(), *row)), kept_halves);
        format!(
            "//! Written by `scripts/gpu-compilers --write`.\n\n\
             /// Instructions in the loop for 100 multiply-adds, by the compilers of AMD, NVIDIA, Adreno and Apple; 0 \
             for none.\n{counted}\n\
             /// How many there are in half precision for 100 of these, by recipe and layout, where that is another \
             number; 0 where\n/// none were counted.\n{halves}"
        )
    }
}

/// A table of the planner: these rows, and of others what they lack.
fn table<'a>(name: &str, rows: impl Iterator<Item = (&'a str, Row)>, kept: &[(&'a str, Row)]) -> String {
    let mut rows: BTreeMap<_, _> = rows.collect();
    for &(key, known) in kept {
        let row = rows.entry(key).or_default();
        *row = std::array::from_fn(|maker| if known[maker] > 0 { known[maker] } else { row[maker] });
    }
    let lines: String = rows.iter().map(|(key, row)| format!("    (\"{key}\", {row:?}),\n")).collect();
    format!("#[rustfmt::skip]\npub const {name}: &[(&str, [u16; 4])] = &[\n{lines}];\n")
}

/// What loops have in half precision, in hundredths of what they have in f32: the geometric mean of the rows of a
/// recipe and layout, where it is far from one for some maker. `depthwise` is left out: its strips round what they store
/// in their loops, and the planner counts that apart.
fn of_halves(halves: &BTreeMap<&str, Row>, rows: &BTreeMap<&str, Row>) -> BTreeMap<String, Row> {
    let mut logarithms: BTreeMap<String, [Vec<f64>; MAKERS.len()]> = BTreeMap::new();
    for (key, half) in halves {
        let Some(full) = rows.get(key.trim_end_matches(OF_HALVES)) else { continue };
        if kernel_of(key) == "depthwise" {
            continue;
        }
        let name = key.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let all = logarithms.entry(name).or_default();
        for (all, (&half, &full)) in
            all.iter_mut().zip(half.iter().zip(full)).filter(|(_, (half, full))| **half.min(full) > 0)
        {
            all.push((f64::from(half) / f64::from(full)).ln());
        }
    }
    let mean = |all: &Vec<f64>| match all.len() {
        0 => 0,
        count => (100.0 * (all.iter().sum::<f64>() / count as f64).exp()).round() as u16,
    };
    let rows = logarithms.into_iter().map(|(name, all)| (name, all.each_ref().map(mean)));
    rows.filter(|(_, row)| row.iter().any(|&number| number > 0 && !(95..=105).contains(&number))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_compared_by_recipe_and_layout() {
        let halves = [("a/1 nchw k3 s1 f16", [200, 100, 0, 104]), ("a/1 nchw k5 s1 f16", [450, 100, 0, 96])];
        // Nearly the same; none in f32; and strips that round in their loops.
        let others =
            [("b/1 nhwc f16", [104, 96, 100, 100]), ("c/1 nhwc f16", [300; 4]), ("depthwise/1x1 nhwc f16", [300; 4])];
        let rows = ["a/1 nchw k3 s1", "a/1 nchw k5 s1", "b/1 nhwc", "depthwise/1x1 nhwc"].map(|key| (key, [100; 4]));
        let found = of_halves(&halves.into_iter().chain(others).collect(), &rows.into_iter().collect());
        assert_eq!(found, [("a/1 nchw".to_owned(), [300, 100, 0, 100])].into_iter().collect());
    }
}
