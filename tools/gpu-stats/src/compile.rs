//! Shaders on a GPU: a process for each GPU, since a driver reads from its environment once which GPU to pretend.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::driver::{self, Driver, Gpu};
use crate::hot_loop::HotLoop;

/// How to compile.
#[derive(Clone, Copy)]
pub struct Options {
    /// Whether to print the machine code, to standard error.
    pub asm: bool,
    /// Whether the device has robust buffer access, as wgpu makes it.
    pub robust: bool,
}

/// What a compiler reports of a shader. Registers and scratch are a lane's, of 32 bits and in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compiled {
    pub file: PathBuf,
    /// Why the driver did not take it.
    pub refused: Option<String>,
    pub registers: u64,
    /// What the driver counts of its kind: waves of a SIMD (AMD), warps of a multiprocessor (NVIDIA), waves of a core
    /// (Adreno), lanes of a core (Apple).
    pub occupancy: u64,
    pub spills: u64,
    pub scratch: u64,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u64,
    pub instructions: u64,
    /// The loop with the most multiply-adds.
    pub hot: HotLoop,
}

impl Compiled {
    pub const HEADER: &str = "gpu        regs waves spill scratch   lds instr | loop  fma fma% vmem   ds | shader";

    pub fn line(&self) -> String {
        if let Some(error) = &self.refused {
            return format!("REFUSED: {error} | {}", self.file.display());
        }
        let Self { registers, occupancy, spills, scratch, workgroup_memory, instructions, hot, .. } = self;
        format!(
            "{registers:>4} {occupancy:>5} {spills:>5} {scratch:>7} {workgroup_memory:>5} {instructions:>5} | \
             {:>4} {:>4} {:>4.0} {:>4} {:>4} | {}",
            hot.instructions,
            hot.fma,
            100.0 * hot.share(),
            hot.vmem,
            hot.lds,
            self.file.display()
        )
    }

    /// Whether values go to memory that should be in registers.
    pub fn spills(&self) -> bool {
        self.spills > 0 || self.scratch > 0
    }
}

/// Compiles files on a GPU, in a process of its own.
pub fn on(gpu: &Gpu, files: &[PathBuf], options: Options) -> Result<Vec<Compiled>> {
    // Not `current_exe`: there may be no /proc beside the drivers.
    let program = std::env::args_os().next().ok_or("this program has no name")?;
    let mut command = Command::new(program);
    command.args(["child", "--gpu", gpu.name]).envs(gpu.environment());
    command.args(options.asm.then_some("--asm")).args((!options.robust).then_some("--no-robustness"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (Some(mut input), Some(output)) = (input, output) else { return Err("no pipe".into()) };
    let paths: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let compiled = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(paths.as_bytes()));
        // A driver may write lines of its own.
        let lines = BufReader::new(output).lines().map_while(std::result::Result::ok);
        lines.filter_map(|line| serde_json::from_str(&line).ok()).collect::<Vec<_>>()
    });
    if !child.wait()?.success() || compiled.len() != files.len() {
        return Err(format!("{}: {} of {} files were compiled", gpu.name, compiled.len(), files.len()).into());
    }
    Ok(compiled)
}

/// Compiles the files whose paths come from standard input, and prints an object for each.
pub fn here(gpu: &Gpu, options: Options) -> Result<()> {
    let driver = Driver::open(options.robust)?;
    for file in std::io::stdin().lines() {
        let file = PathBuf::from(file?);
        println!("{}", serde_json::to_string(&one(gpu, &driver, &file, options)?)?);
    }
    Ok(())
}

fn one(gpu: &Gpu, driver: &Driver, file: &Path, options: Options) -> Result<Compiled> {
    let source = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let (module, spirv) = spirv(&source, &file.display().to_string())?;
    let mut compiled = Compiled {
        file: file.to_path_buf(),
        refused: None,
        registers: 0,
        occupancy: 0,
        spills: 0,
        scratch: 0,
        workgroup_memory: 0,
        instructions: 0,
        hot: HotLoop::default(),
    };
    match driver.compile(&module, &spirv, "main") {
        Ok(code) => {
            if options.asm {
                eprintln!("{}", code.assembly);
            }
            compiled.fill(gpu, &code);
        }
        Err(error) => compiled.refused = Some(error.to_string()),
    }
    Ok(compiled)
}

impl Compiled {
    /// Reads each driver's own statistics.
    fn fill(&mut self, gpu: &Gpu, code: &driver::Code) {
        self.hot = HotLoop::find(gpu.dialect(), &code.assembly);
        self.workgroup_memory = code.workgroup_memory;
        for (name, value) in &code.statistics {
            match name.as_str() {
                "VGPRs" | "Number of GPRs" => self.registers = *value,
                // In halves of 16 bits.
                "GPRs" => self.registers = value.div_ceil(2),
                // Of four components.
                "Registers used" => self.registers = *value * 4,
                "Spilled VGPRs" | "Spilled SGPRs" | "Spills to memory" | "Fills from memory" | "Spills" | "Fills"
                | "STP Count" | "LDP Count" => self.spills += *value,
                "Scratch size" | "SLM size" | "Scratch" => self.scratch = *value,
                "Subgroups per SIMD" | "Max warps/SM" | "Max Waves Per Core" | "Threads" => self.occupancy = *value,
                "Instructions" | "Instruction count" | "Instruction Count" => self.instructions = *value,
                _ => {}
            }
        }
    }
}

/// WGSL to SPIR-V with wgpu's settings for a trusted shader: no bounds checks, no loop bounding, no zeroing of
/// workgroup memory.
fn spirv(source: &str, file: &str) -> Result<(naga::Module, Vec<u32>)> {
    use naga::back::{pipeline_constants::process_overrides, spv};
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    let module = naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string_with_path(source, file))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|error| error.emit_to_string_with_path(source, file))?;
    let (module, info) = process_overrides(&module, &info, None, &Default::default())?;
    let options = spv::Options {
        lang_version: (1, 4),
        force_loop_bounding: false,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..Default::default()
    };
    let words = spv::write_vec(&module, &info, &options, None)?;
    Ok((module.into_owned(), words))
}
