//! `gpuconv-web-bindgen MODULE.wasm FOLDER NAME`: what `wasm-bindgen --target web` does, at the version of Cargo.lock.

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [module, folder, name] = &arguments[..] else {
        eprintln!("gpuconv-web-bindgen MODULE.wasm FOLDER NAME");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).out_name(name).typescript(true);
    bindgen.remove_name_section(true).remove_producers_section(true);
    // So that `init()` finds the module beside it.
    let outcome = bindgen.web(true).and_then(|web| web.omit_default_module_path(false).generate(folder));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}
