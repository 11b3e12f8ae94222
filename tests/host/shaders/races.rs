//! Checks that invocations do not write the same vector at the same time. Writing one component may write the whole
//! vector (WGSL, "Memory Locations"; Metal and Direct3D do this). So a shader must not write single components of
//! shared vectors.

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{AddressSpace, Block, Function, Module, Statement, TypeInner};

/// Checks all functions of a module and its only entry point.
pub fn check(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
    let entry = &module.entry_points[0].function;
    functions.chain([(entry, info.get_entry_point(0))]).try_for_each(|(function, info)| {
        let name = function.name.as_deref().unwrap_or("main");
        writes_whole_vectors(module, function, info, &function.body).map_err(|error| format!("{name}: {error}"))
    })
}

fn writes_whole_vectors(
    module: &Module,
    function: &Function,
    info: &FunctionInfo,
    block: &Block,
) -> Result<(), String> {
    let inside = |block: &Block| writes_whole_vectors(module, function, info, block);
    block.iter().try_for_each(|statement| match statement {
        Statement::Store { pointer, .. } => match info[*pointer].ty.inner_with(&module.types) {
            TypeInner::ValuePointer { size: None, space, .. } if is_shared(*space) => {
                Err(format!("writes one component of a shared vector: {:?}", function.expressions[*pointer]))
            }
            _ => Ok(()),
        },
        Statement::Block(block) => inside(block),
        Statement::If { accept, reject, .. } => inside(accept).and_then(|()| inside(reject)),
        Statement::Switch { cases, .. } => cases.iter().try_for_each(|case| inside(&case.body)),
        Statement::Loop { body, continuing, .. } => inside(body).and_then(|()| inside(continuing)),
        _ => Ok(()),
    })
}

fn is_shared(space: AddressSpace) -> bool {
    matches!(space, AddressSpace::WorkGroup | AddressSpace::Storage { .. })
}

#[test]
fn a_component_of_a_shared_vector_is_found() {
    let check = |statement: &str| {
        let wgsl = format!(
            "var<workgroup> tile: array<vec4<f32>, 4>;\n\
             @group(0) @binding(0) var<storage, read_write> output: array<vec4<f32>>;\n\
             fn write(at: u32) {{ for (var i = 0u; i < 4u; i++) {{ if at > i {{ var own = vec4<f32>(); {statement} }} }} }}\n\
             @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) at: u32) {{ write(at); }}"
        );
        let module = naga::front::wgsl::parse_str(&wgsl).unwrap();
        let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), Default::default());
        let info = validator.validate(&module).unwrap();
        super::races::check(&module, &info)
    };
    assert!(check("tile[0][at % 4u] = 1.0;").is_err());
    assert!(check("output[at].y = 1.0;").is_err());
    assert_eq!(check("tile[at] = vec4<f32>(1.0); output[at] = own;"), Ok(()));
    assert_eq!(check("own[at % 4u] = 1.0; own.y = 2.0;"), Ok(()));
}
