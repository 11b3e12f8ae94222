//! Every shader for the cases of the table, without a GPU. Each parses, validates, translates to the languages of all
//! platforms' drivers, and matches its recipe.

mod dawn;
mod races;
mod uniformity;

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use gpuconv::gpu::GpuKind;
use gpuconv::internals::{Operand, Params, copy};
use gpuconv::planner::Pass;
use gpuconv::{
    Caps, Chain, Choice, Concat, Conv2d, DType, Layout, Link, Residual, Resize, Shape, SqueezeExcite, planner, probe,
    verify,
};
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, Module, TypeInner, back};

/// Devices with different recipes. Those with fewer features come first: a shader that several share is validated for
/// the first of them.
fn devices() -> Vec<Caps> {
    let mut devices = Vec::new();
    for subgroup in [None, Some([32, 32]), Some([16, 32]), Some([4, 4]), Some([8, 8])] {
        for is_cpu in [false, true] {
            devices.push(Caps {
                subgroup,
                is_cpu,
                int64: subgroup.is_some_and(|[least, _]| least <= 8),
                f16: subgroup.is_some(),
                // With enough registers for every recipe.
                gpu: GpuKind::OtherDiscrete.typical(),
                ..Caps::webgpu()
            });
        }
    }
    devices
}

/// A pass, its origin for messages, and the capabilities that its shader may use.
struct Shader {
    pass: Pass,
    origin: String,
    capabilities: Capabilities,
}

/// The cases of the table, and inverted residuals, which no problem line can express.
fn problems() -> Vec<(String, Chain, Shape, Layout)> {
    let table = verify::cases();
    let table = table.iter().map(|problem| (problem.to_string(), problem.chain(), problem.input, problem.layout));
    let block = |channels: u32, depthwise: Conv2d, width: u32, layout: Layout| {
        let hidden = depthwise.in_channels;
        let links = [Conv2d::pointwise(channels, hidden), depthwise, Conv2d::pointwise(hidden, channels)];
        let name = format!("inverted residual of {channels} channels in {layout}, {width} wide: {:?}", links[1]);
        (name, Chain::new(links), Shape::from([2, channels, 9, width]), layout)
    };
    let depthwise = |kernel: u32| Conv2d::depthwise(20, kernel).padding(kernel / 2);
    let relu6 = |stride: u32, layout: Layout| {
        let name = format!("inverted residual of 32 channels in {layout}, ReLU6, stride {stride}");
        (name, Chain::inverted_residual(8, 8, 4, stride), Shape::from([1, 8, 9, 9]), layout)
    };
    // Numbers of input channels that are a multiple of four and that are not; one to six inputs per invocation;
    // expanded channels that fill whole steps, with a shared test for NaNs, and that do not.
    let blocks = [Layout::Nchw, Layout::Nhwc].into_iter().flat_map(|layout| {
        [
            block(8, depthwise(3), 7, layout),
            block(8, depthwise(3).stride(2), 8, layout),
            block(6, depthwise(5), 8, layout),
            block(5, depthwise(3), 7, layout),
            block(12, depthwise(5), 7, layout),
            block(8, depthwise(5).stride(2), 9, layout),
            relu6(1, layout),
            relu6(2, layout),
        ]
    });
    // What a gate follows is expanded and convolved by one kernel, which may also add up what the gate needs.
    let expanded = [Layout::Nchw, Layout::Nhwc].into_iter().flat_map(|layout| {
        let chain = Chain::new([Conv2d::pointwise(8, 20), depthwise(3)]);
        let gated = chain.clone().then(Link::from(SqueezeExcite::new(20, 5)));
        [("", chain), (", and their gate,", gated)].map(|(gate, chain)| {
            let name = format!("an expansion and a depthwise convolution{gate} in {layout}");
            (name, chain, [2, 8, 9, 7].into(), layout)
        })
    });
    table.chain(blocks).chain(expanded).collect()
}

/// Chains in which a convolution reads channels of a tensor and adds them, and stores channels of another; and those in
/// which it adds an enlarged image, and stores a shuffle.
fn in_others() -> Vec<(String, Chain, Shape, Layout)> {
    let convs = [Conv2d::new(8, 8, 3).padding(1), Conv2d::pointwise(8, 8), Conv2d::depthwise(8, 3).padding(1)];
    let chains = convs.into_iter().zip([1, 4, 2]).flat_map(|(conv, others)| {
        let links = [
            Link::Slice { channels: others..others + 8 },
            conv.clone().into(),
            Conv2d::pointwise(8, others).into(),
            Concat::new([others, 8]).into(),
        ];
        let chain = Chain::new(links).edge(1, 1, Residual::AfterActivation).unwrap();
        let channels = chain.reads(1, 2).unwrap().concatenates([3, 2], 3).unwrap();
        let half = Conv2d::depthwise(8, 2).stride(2).into();
        let links = [half, Link::from(Resize::by(2.0)), conv.into(), Link::PixelShuffle { factor: 2 }];
        let moved = Chain::new(links).reads(0, 2).unwrap().edge(2, 2, Residual::BeforeActivation).unwrap();
        let of = |chain: &Chain, dtype: DType, channels: u32, layout: Layout| {
            let name = format!("a tensor of {channels} channels in {layout} {dtype}, in which others lie");
            (name, chain.clone().with_dtype(dtype), Shape::from([2, channels, 6, 10]), layout)
        };
        [
            of(&channels, DType::F32, others + 8, Layout::Nchw),
            of(&channels, DType::F16, others + 8, Layout::Nhwc),
            of(&moved, DType::F32, 8, Layout::Nhwc),
            of(&moved, DType::F16, 8, Layout::Nchw),
        ]
    });
    chains.collect()
}

/// The shaders of the devices that differ most: GPUs with half-precision numbers and without (none of whose shaders
/// uses subgroups), and software devices with subgroups and without. For every fourth case: all take a minute.
static SHADERS: LazyLock<Vec<Shader>> = LazyLock::new(|| {
    let mut devices = devices();
    devices.retain(|caps| caps.subgroup.is_none_or(|sizes| sizes == if caps.is_cpu { [8, 8] } else { [32, 32] }));
    distinct(&devices, 4)
});

/// Each distinct shader of every `step`-th case once. Two passes with the same text must have the same bindings and
/// workgroup.
fn distinct(devices: &[Caps], step: usize) -> Vec<Shader> {
    let all = candidates(devices, step);
    let (texts, next) = (all.iter().map(|_| OnceLock::new()).collect::<Vec<_>>(), AtomicUsize::new(0));
    on_all_cores(|| {
        while let Some((shader, text)) = turn(&next, &all, &texts) {
            let _ = text.set(shader.pass.wgsl.text().unwrap_or_else(|error| panic!("{}: {error}", shader.origin)));
        }
    });
    let mut shaders: HashMap<Arc<str>, Shader> = HashMap::new();
    for (mut shader, text) in all.into_iter().zip(texts) {
        let text = text.into_inner().unwrap();
        if let Some(known) = shaders.get(&text) {
            let bindings = [known, &shader].map(|shader| bindings_of(&shader.pass.operands));
            assert_eq!(bindings[0], bindings[1], "{} and {}", shader.origin, known.origin);
            assert_eq!(known.pass.workgroup, shader.pass.workgroup, "{} and {}", shader.origin, known.origin);
            continue;
        }
        // Rendered once.
        shader.pass.wgsl = text.clone().into();
        shaders.insert(text, shader);
    }
    let probes =
        probe::passes(1).map(|pass| Shader { pass, origin: "a probe".into(), capabilities: Capabilities::empty() });
    shaders.into_values().chain(probes).collect()
}

/// The shaders of all candidates for every `step`-th problem on some devices, with duplicates.
fn candidates(devices: &[Caps], step: usize) -> Vec<Shader> {
    let mut all = Vec::new();
    for caps in devices {
        // Only an old llvmpipe without half precision lacks it.
        let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        capabilities.set(Capabilities::SUBGROUP, caps.subgroup.is_some());
        // Shaders for GPUs do not use it.
        capabilities.set(Capabilities::SHADER_INT64, caps.int64 && caps.is_cpu);
        capabilities.set(Capabilities::SHADER_FLOAT16, caps.f16);
        for (problem, chain, input, layout) in problems().into_iter().step_by(step) {
            let schedule = planner::schedule(&chain, input, layout, caps, &Choice::Auto);
            let considered = schedule.unwrap_or_else(|error| panic!("{problem}: {error}")).considered;
            let candidates = considered.iter().filter_map(|considered| considered.answer.as_ref().ok()).flatten();
            for recipe in candidates.map(|candidate| candidate.recipe.clone()) {
                let origin = format!("{} of {problem}", recipe.name);
                all.extend(recipe.passes.into_iter().map(|pass| Shader { pass, origin: origin.clone(), capabilities }));
            }
        }
        // Every recipe for tensors that lie in others.
        for (problem, chain, input, layout) in in_others() {
            let schedules = planner::alternatives(&chain, input, layout, caps);
            let schedules = schedules.unwrap_or_else(|error| panic!("{problem}: {error}"));
            for recipe in schedules.into_iter().flat_map(|schedule| schedule.steps).map(|step| step.recipe) {
                let origin = format!("{} of {problem}", recipe.name);
                all.extend(recipe.passes.into_iter().map(|pass| Shader { pass, origin: origin.clone(), capabilities }));
            }
        }
    }
    all
}

/// The next shader, and the slot for its text.
fn turn<'a, T>(next: &AtomicUsize, all: &'a [Shader], texts: &'a [T]) -> Option<(&'a Shader, &'a T)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    all.get(index).zip(texts.get(index))
}

fn on_all_cores(work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(&work);
        }
    });
}

#[test]
fn every_shader_is_valid_translates_and_matches_its_recipe() {
    check_all(&SHADERS, 600);
}

#[test]
#[ignore = "takes minutes"]
fn every_shader_of_every_device_is_valid_in_full() {
    check_all(&distinct(&devices(), 1), 2000);
}

fn check_all(shaders: &[Shader], least: usize) {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    assert!(shaders.len() > least, "only {} shaders", shaders.len());
    on_all_cores(|| {
        while let Some(shader) = shaders.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = check(shader) {
                wrong.lock().unwrap().push(format!("{}: {error}", shader.origin));
            }
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let first: Vec<_> = wrong.iter().take(10).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {} shaders, among them\n{}", wrong.len(), shaders.len(), first.join("\n"));
}

#[test]
fn what_drivers_get_reads_well() {
    for shader in SHADERS.iter() {
        let wgsl = shader.pass.wgsl.text().unwrap();
        reads_well(&wgsl).unwrap_or_else(|error| panic!("{}: {error}\n{wgsl}", shader.origin));
    }
    assert!(SHADERS.len() > 600, "only {} shaders", SHADERS.len());
}

/// The shaders that copy bands have parameters of their own.
#[test]
fn copies_of_bands_are_valid_and_translate() {
    for pass in copy::passes() {
        let wgsl = pass.wgsl.text().unwrap();
        assert!(["//%", "//#", "${"].iter().all(|template| !wgsl.contains(template)), "{wgsl}");
        let shader = Shader { pass, origin: "a copy".into(), capabilities: Capabilities::empty() };
        let (module, info) = parse(&shader).unwrap();
        let params = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Params")).unwrap().1;
        let TypeInner::Struct { span, .. } = params.inner else { panic!("{params:?}") };
        assert_eq!(span as usize, size_of::<copy::Params>());
        uniformity::check(&module).and_then(|()| races::check(&module, &info)).unwrap();
        translates(&module, &info).unwrap();
    }
}

/// Checks that a shader has a header, short lines, marked parts, no unused function, and no remains of its template.
fn reads_well(wgsl: &str) -> Result<(), String> {
    let (first, second) = (wgsl.lines().next().unwrap_or_default(), wgsl.lines().nth(1).unwrap_or_default());
    if !first.starts_with("// ") || !first.contains(": ") || second != "//" {
        return Err(format!("no header: {first}"));
    }
    // A part may have others in it.
    let mut open = Vec::new();
    for wrong in ["//%", "//#", "${", "{%", "{{", " None", " + 0u", " - 0u", " + 0 ", " - 0 ", "\t"] {
        if wgsl.contains(wrong) {
            return Err(format!(
                "`{wrong}` in: {}",
                wgsl.lines().find(|line| line.contains(wrong)).unwrap_or_default()
            ));
        }
    }
    for line in wgsl.lines() {
        if line.chars().count() > 120 || line.trim_end() != line {
            return Err(format!("too long, or blanks at its end: {line}"));
        }
        if let Some(name) = line.strip_prefix("// ---- begin ") {
            open.push(name);
        }
        if let Some(name) = line.strip_prefix("// ---- end ") {
            expect("part", Some(name), open.pop())?;
        }
    }
    expect("parts", 0, open.len())?;
    if !wgsl.contains("\n// ---- begin params.wgsl\n") || wgsl.contains("\n\n\n") {
        return Err("no parts, or two blank lines in a row".into());
    }
    // Words with a parenthesis behind them: each function has one where it is declared, and more where it is called.
    let mut parentheses: HashMap<&str, usize> = HashMap::new();
    for words in wgsl.split('(') {
        let name = words.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
        *parentheses.entry(name.unwrap_or_default()).or_default() += 1;
    }
    let declared = wgsl.lines().filter_map(|line| line.strip_prefix("fn ")?.split('(').next());
    match declared.into_iter().find(|name| *name != "main" && parentheses[name] < 2) {
        Some(name) => Err(format!("nothing calls {name}")),
        None => Ok(()),
    }
}

fn check(shader: &Shader) -> Result<(), String> {
    let (module, info) = parse(shader)?;
    matches_recipe(&shader.pass, &module, &info)?;
    uniformity::check(&module)?;
    races::check(&module, &info)?;
    translates(&module, &info)
}

fn parse(shader: &Shader) -> Result<(Module, ModuleInfo), String> {
    let wgsl = &*shader.pass.wgsl.text().unwrap();
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| error.emit_to_string(wgsl))?;
    let info = Validator::new(ValidationFlags::all(), shader.capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|error| error.emit_to_string(wgsl))?;
    Ok((module, info))
}

fn matches_recipe(pass: &Pass, module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let [entry] = &module.entry_points[..] else { return Err("not one entry point".into()) };
    expect("entry point", "main", entry.name.as_str())?;
    expect("workgroup", [pass.workgroup, 1, 1], entry.workgroup_size)?;
    expect("workgroup memory", pass.workgroup_memory, workgroup_memory(module))?;
    // The limit that WebGPU promises everywhere.
    if pass.workgroup_memory > 16384 {
        return Err(format!("{} bytes of workgroup memory", pass.workgroup_memory));
    }
    expect("(binding, written)", bindings_of(&pass.operands), used_bindings(module, info))?;
    expect("parameter block", host_params(), params(module)?)
}

fn translates(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    // The first versions with subgroup operations, and for Direct3D with half-precision numbers: SPIR-V 1.3 for Vulkan,
    // shader model 6.2, Metal 2.4.
    let options = back::spv::Options { lang_version: (1, 3), ..Default::default() };
    let words = back::spv::write_vec(module, info, &options, None);
    is_valid_spirv(&words.map_err(|error| format!("SPIR-V: {error}"))?)?;

    let options = back::hlsl::Options { shader_model: back::hlsl::ShaderModel::V6_2, ..Default::default() };
    let (mut text, everything) = (String::new(), Default::default());
    let reflection = back::hlsl::Writer::new(&mut text, &options, &everything).write(module, info, None);
    let entry_points = reflection.map_err(|error| format!("HLSL: {error}"))?.entry_point_names;
    for entry_point in entry_points {
        entry_point.map_err(|error| format!("HLSL: {error}"))?;
    }

    let options = back::msl::Options { lang_version: (2, 4), ..Default::default() };
    let written = back::msl::write_string(module, info, &options, &Default::default());
    let (_, translation) = written.map_err(|error| format!("MSL: {error}"))?;
    for entry_point in translation.entry_point_names {
        entry_point.map_err(|error| format!("MSL: {error}"))?;
    }
    Ok(())
}

/// Runs the Khronos validator on a module, if it is installed (Debian's package spirv-tools).
fn is_valid_spirv(words: &[u32]) -> Result<(), String> {
    let mut command = Command::new("spirv-val");
    command.args(["--target-env", "vulkan1.1"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut validator = match command.spawn() {
        Ok(validator) => validator,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("spirv-val: {error}")),
    };
    let written = validator.stdin.take().map(|mut stdin| stdin.write_all(bytemuck::cast_slice(words)));
    let output = validator.wait_with_output().map_err(|error| format!("spirv-val: {error}"))?;
    if !output.status.success() {
        return Err(format!("spirv-val: {}", String::from_utf8_lossy(&output.stderr)));
    }
    written.unwrap_or(Ok(())).map_err(|error| format!("spirv-val: {error}"))
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, actual: T) -> Result<(), String> {
    if expected == actual { Ok(()) } else { Err(format!("{what}: {expected:?} expected, {actual:?} found")) }
}

fn workgroup_memory(module: &Module) -> u32 {
    let globals = module.global_variables.iter().map(|(_, global)| global);
    let shared = globals.filter(|global| global.space == AddressSpace::WorkGroup);
    shared.map(|global| module.types[global.ty].inner.size(module.to_ctx())).sum()
}

/// The storage bindings that the host creates for operands, and whether each is written.
fn bindings_of(operands: &[Operand]) -> BTreeSet<(u32, bool)> {
    (1..).zip(operands).map(|(binding, operand)| (binding, operand.is_written())).collect()
}

/// The storage bindings that the entry point uses, and whether each can be written.
fn used_bindings(module: &Module, info: &ModuleInfo) -> BTreeSet<(u32, bool)> {
    let entry = info.get_entry_point(0);
    let globals = module.global_variables.iter().filter(|(handle, _)| entry[*handle] != GlobalUse::empty());
    let bindings = globals.filter_map(|(_, global)| match (global.space, global.binding) {
        (AddressSpace::Storage { access }, Some(binding)) => {
            Some((binding.binding, access.contains(naga::StorageAccess::STORE)))
        }
        _ => None,
    });
    bindings.collect()
}

/// Name and offset of each number in the host's parameter block. To find them, set each number to its own offset, and
/// print the block.
fn host_params() -> Vec<(String, u32)> {
    let offsets: [u32; size_of::<Params>() / 4] = std::array::from_fn(|index| index as u32 * 4);
    let printed = format!("{:?}", bytemuck::cast::<_, Params>(offsets));
    let fields = printed.trim_start_matches("Params { ").trim_end_matches(" }").split(", ");
    let fields = fields.filter_map(|field| field.split_once(": "));
    fields.map(|(name, offset)| (name.into(), offset.parse().unwrap())).collect()
}

/// Name and offset of each number in the shader's parameter block. It must be the only uniform, and at binding 0.
fn params(module: &Module) -> Result<Vec<(String, u32)>, String> {
    let mut uniforms = module.global_variables.iter().filter(|(_, global)| global.space == AddressSpace::Uniform);
    let (Some((_, uniform)), None) = (uniforms.next(), uniforms.next()) else { return Err("not one uniform".into()) };
    expect("binding of the parameters", Some(0), uniform.binding.map(|binding| binding.binding))?;
    let TypeInner::Struct { members, span } = &module.types[uniform.ty].inner else {
        return Err("the parameters are not a struct".into());
    };
    expect("size of the parameters", size_of::<Params>() as u32, *span)?;
    let is_u32 = |ty| module.types[ty].inner == TypeInner::Scalar(naga::Scalar::U32);
    if !members.iter().all(|member| is_u32(member.ty)) {
        return Err("a parameter is not a u32".into());
    }
    Ok(members.iter().map(|member| (member.name.clone().unwrap_or_default(), member.offset)).collect())
}
