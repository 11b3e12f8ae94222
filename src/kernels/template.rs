//! The shaders' template engine: WGSL files in which `//%` begins a statement, `//#` a comment that drivers do not
//! see, and `${name}` is a value.

#[cfg(any(test, target_arch = "wasm32"))]
mod bare;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

use crate::model::error::{Error, Result};

/// Files of `shaders/`, by their names.
macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, text!($name))),*] };
}

/// A file's text.
#[cfg(not(target_arch = "wasm32"))]
macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("../../shaders/", $name))
    };
}

/// A file's text without what only readers need, which would be a twentieth of a web page's module.
#[cfg(target_arch = "wasm32")]
macro_rules! text {
    ($name:literal) => {{
        const TEXT: &str = include_str!(concat!("../../shaders/", $name));
        const BARE: [u8; bare::length(TEXT)] = bare::bytes(TEXT);
        match str::from_utf8(&BARE) {
            Ok(text) => text,
            Err(_) => TEXT,
        }
    }};
}

/// The templates of kernels, each a whole shader.
const KERNELS: &[(&str, &str)] = files![
    "channels.wgsl",
    "copy.wgsl",
    "depthwise.wgsl",
    "depthwise_row.wgsl",
    "direct.wgsl",
    "expand_depthwise.wgsl",
    "gate.wgsl",
    "gemm_registers.wgsl",
    "gemm_tile.wgsl",
    "matvec.wgsl",
    "pool.wgsl",
    "pool_serial.wgsl",
    "pool_strided.wgsl",
    "prelu.wgsl",
    "probe_arithmetic.wgsl",
    "probe_copy.wgsl",
    "probe_loads.wgsl",
    "resize.wgsl",
    "shuffle.wgsl",
    "split_sum.wgsl",
    "transposed.wgsl",
    "window_pool.wgsl",
    "winograd_input.wgsl",
    "winograd_output.wgsl",
];

/// What they include.
const PARTS: &[(&str, &str)] = files![
    "channel_block.wgsl",
    "inner_activation.wgsl",
    "means.wgsl",
    "output.wgsl",
    "params.wgsl",
    "source_depthwise.wgsl",
    "source_depthwise_gather.wgsl",
    "source_inverted.wgsl",
    "source_pointwise.wgsl",
    "source_rows.wgsl",
    "source_taps.wgsl",
    "source_window.wgsl",
    "strip_columns.wgsl",
    "tensors.wgsl",
    "views.wgsl",
    "winograd_points.wgsl",
];

/// A template in the engine's own syntax. A part stands between comments that say where it begins and ends. The first
/// stands on the part's own first line, so that the engine's line numbers are the file's.
fn template(name: &str) -> Option<String> {
    let of = |files: &[(&str, &str)]| files.iter().find(|(own, _)| *own == name).map(|(_, text)| standard(text));
    let marked = |text: String| format!("{{{{ \"{BEGIN}{name}\\n\" }}}}{text}\n{END}{name}\n");
    of(KERNELS).or_else(|| of(PARTS).map(marked))
}
const BEGIN: &str = "// ---- begin ";
const END: &str = "// ---- end ";

/// The engine. Its built-in filters and functions, of which templates need a few, would make a web page's module a tenth
/// larger.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    // Only with what is added here, since the engine has more where another crate of a program asks for more of it.
    let mut environment = Environment::empty();
    // A line that is a statement alone leaves nothing behind.
    environment.set_lstrip_blocks(true);
    environment.set_trim_blocks(true);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_keep_trailing_newline(true);
    environment.add_function("range", range);
    environment.add_filter("batch", |list: Vec<Value>, count: usize| -> Vec<Value> {
        list.chunks(count.max(1)).map(|chunk| Value::from(chunk.to_vec())).collect()
    });
    environment.add_filter(
        "default",
        |value: &Value, other: Value| {
            if value.is_undefined() { other } else { value.clone() }
        },
    );
    environment.add_filter("max", |numbers: Vec<i64>| numbers.into_iter().max());
    environment.add_filter("min", |numbers: Vec<i64>| numbers.into_iter().min());
    environment.add_filter("reverse", |list: Vec<Value>| -> Vec<Value> { list.into_iter().rev().collect() });
    environment.add_filter("trim", |text: String| text.trim().to_string());
    environment.add_function("plus", plus);
    environment.add_function("plus_signed", plus_signed);
    // A file is parsed when a shader first needs it: half of the time to a first shader was to parse all of them.
    environment.set_loader(|name| Ok(template(name)));
    environment
});

/// A template of `shaders/` in the engine's own syntax, line by line. The engine could be told of another one, by code
/// that would be a tenth of a web page's module.
fn standard(text: &str) -> String {
    let mut standard = String::with_capacity(text.len() + text.len() / 8);
    for line in text.split_inclusive('\n') {
        let code = line.trim();
        if let Some(statement) = code.strip_prefix("//%") {
            standard.extend(["{%", statement, " %}\n"]);
        } else if code.starts_with("//#") {
            standard.push_str("{##}\n");
        } else {
            let mut parts = line.split("${");
            standard.extend(parts.next());
            for part in parts {
                match part.split_once('}') {
                    Some((value, rest)) => standard.extend(["{{ ", value, " }}", rest]),
                    None => standard.extend(["${", part]),
                }
            }
        }
    }
    standard
}

/// For templates: numbers to a bound, or from one to another, or in steps.
fn range(low: i64, high: Option<i64>, step: Option<usize>) -> Vec<i64> {
    let numbers = if let Some(high) = high { low..high } else { 0..low };
    numbers.step_by(step.unwrap_or(1).max(1)).collect()
}

/// For templates: ` + COUNTu`, or ` + COUNTu * OF`, and nothing where that is zero.
fn plus(count: u32, of: Option<&str>) -> String {
    match (count, of) {
        (0, _) => String::new(),
        (1, Some(of)) => format!(" + {of}"),
        (_, Some(of)) => format!(" + {count}u * {of}"),
        (_, None) => format!(" + {count}u"),
    }
}

/// For templates: ` + COUNT`, a signed number, and nothing where it is zero.
fn plus_signed(count: u32) -> String {
    if count == 0 { String::new() } else { format!(" + {count}") }
}

/// Renders a kernel's template.
///
/// # Errors
/// [`Error::Internal`] with the engine's message, file and line, if the template is wrong or lacks a value.
pub fn render(name: &str, values: &Value) -> Result<String> {
    let internal = |error: &minijinja::Error| Error::Internal(format!("a shader cannot be rendered: {}", chain(error)));
    let text = ENVIRONMENT.get_template(name).and_then(|template| template.render(values));
    Ok(without_unused(&directives_first(&text.map_err(|error| internal(&error))?)))
}

/// A shader with its directives, which files that it includes may have, behind its first comment: WGSL wants them
/// before all else.
fn directives_first(text: &str) -> String {
    let is_directive = |line: &&str| line.starts_with("enable ");
    let comment = text.lines().take_while(|line| line.starts_with("//")).count();
    let (first, rest) = (text.lines().take(comment), text.lines().skip(comment));
    let lines = first.chain(text.lines().filter(is_directive)).chain(rest.filter(|line| !is_directive(line)));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// An error with those that it comes from: the last names the file that is included and the line in it.
fn chain(error: &minijinja::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
}

/// A piece of a shader: a function or a structure with the comment above it, or what stands between these.
#[derive(Default)]
struct Piece<'a> {
    /// Of a function or a structure.
    name: Option<&'a str>,
    is_function: bool,
    lines: Vec<&'a str>,
}

/// A shader without the functions and structures that nothing names, as parts have some for other kernels.
fn without_unused(text: &str) -> String {
    let pieces = pieces(text);
    let named: HashMap<_, _> = pieces.iter().filter_map(|piece| Some((piece.name?, piece))).collect();
    let mut used = HashSet::new();
    let mut open: Vec<_> = pieces.iter().filter(|piece| piece.name.is_none()).collect();
    while let Some(piece) = open.pop() {
        // A function is called; its name may be a variable's too.
        for (name, is_called) in piece.lines.iter().flat_map(|line| words(line)) {
            if let Some(piece) = named.get(name)
                && (is_called || !piece.is_function)
                && used.insert(name)
            {
                open.push(piece);
            }
        }
    }
    let mut kept = String::with_capacity(text.len());
    let mut lines = pieces.iter().filter(|piece| piece.name.is_none_or(|name| used.contains(name)));
    let mut last = "";
    for line in lines.by_ref().flat_map(|piece| piece.lines.iter().copied()) {
        if !line.is_empty() || !last.is_empty() {
            kept.push_str(line);
            kept.push('\n');
        }
        last = line;
    }
    kept
}

/// The words of a line before its comment, and whether a parenthesis follows each.
fn words(line: &str) -> impl Iterator<Item = (&str, bool)> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let (bytes, mut at) = (line.as_bytes(), 0);
    std::iter::from_fn(move || {
        while !is_word(*bytes.get(at)?) {
            if bytes[at..].starts_with(b"//") {
                return None;
            }
            at += 1;
        }
        let start = at;
        while bytes.get(at).copied().is_some_and(is_word) {
            at += 1;
        }
        Some((&line[start..at], bytes.get(at) == Some(&b'(')))
    })
}

/// A shader in pieces, by how it is formatted: what begins at a line's start ends with the first `}` at one.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = vec![Piece::default()];
    let (mut inside, mut attributed) = (false, false);
    for line in text.lines() {
        let word = line.strip_prefix("fn ").or_else(|| line.strip_prefix("struct "));
        let name = word.filter(|_| !inside && !attributed).and_then(|word| word.split(['(', ' ']).next());
        if let (Some(name), Some(before)) = (name, pieces.last_mut()) {
            let is_comment =
                |line: &&&str| line.starts_with("//") && ![BEGIN, END].iter().any(|mark| line.starts_with(mark));
            let comments = before.lines.iter().rev().take_while(is_comment).count();
            let mut lines = before.lines.split_off(before.lines.len() - comments);
            lines.push(line);
            pieces.push(Piece { name: Some(name), is_function: line.starts_with("fn "), lines });
            inside = true;
        } else if let Some(piece) = pieces.last_mut() {
            piece.lines.push(line);
        }
        // An entry point's attributes stand on the line before it.
        attributed = line.starts_with('@') && !line.ends_with(';');
        if inside && (line == "}" || (name.is_some() && line.ends_with('}'))) {
            pieces.push(Piece::default());
            inside = false;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    #[test]
    fn a_value_that_is_missing_is_an_error_with_file_and_line() {
        let Err(Error::Internal(message)) = render("pool_serial.wgsl", &context! {}) else { panic!("rendered") };
        assert!(message.contains("undefined value") && message.contains("pool_serial.wgsl:1"), "{message}");
        // In a part, and in a part of that.
        let own = context! { recipe => "pool/serial", layout => "nchw", WORKGROUP => 1, COUNT => 1 };
        let more = context! { geometry => (), ..own.clone() };
        let parts = [include_str!("../../shaders/params.wgsl"), include_str!("../../shaders/tensors.wgsl")];
        for (values, (file, text)) in [own, more].iter().zip(["params.wgsl:", "tensors.wgsl:"].iter().zip(parts)) {
            let Err(Error::Internal(message)) = render("pool_serial.wgsl", values) else { panic!("rendered") };
            assert!(message.contains("undefined value"), "{message}");
            let line = message.split_once(file).and_then(|(_, rest)| rest.split(')').next()?.parse::<usize>().ok());
            let line = text.lines().nth(line.expect(&message) - 1).unwrap();
            assert!(line.contains("//% if") || line.contains("${"), "{message}: {line}");
        }
    }

    #[test]
    fn lines_become_the_engines_own() {
        let text = "//# a\n  //% for b in c\n    d${b + 1}e${b}}\n  //% endfor\n$ {}\n";
        let expected = "{##}\n{% for b in c %}\n    d{{ b + 1 }}e{{ b }}}\n{% endfor %}\n$ {}\n";
        assert_eq!(standard(text), expected);
        // What the engine would take for its own, and what would be taken for it where a value begins.
        for (name, text) in KERNELS.iter().chain(PARTS) {
            let own = ["{{", "{%", "{#", "{${"].into_iter().find(|own| text.contains(own));
            assert_eq!(own, None, "{name}");
        }
    }

    #[test]
    fn a_template_that_is_missing_is_an_error() {
        assert!(matches!(render("none.wgsl", &context! {}), Err(Error::Internal(_))));
    }

    #[test]
    fn an_element_type_that_no_array_has_is_an_error() {
        let values = |element| {
            context! {
                recipe => "pool/serial", WORKGROUP => 1, COUNT => 1, geometry => (), layout => "nchw", input => "scalar",
                weights => "none", output => "scalar", residual => "none",
                elements => context! { input => element, weights => "f32", output => "f32" },
            }
        };
        assert!(render("pool_serial.wgsl", &values("f32")).is_ok());
        let Err(Error::Internal(message)) = render("pool_serial.wgsl", &values("f64")) else { panic!("rendered") };
        assert!(message.contains("undefined value"), "{message}");
    }

    #[test]
    fn directives_stand_before_all_else() {
        let text = "// A.\n// B.\nconst C: u32 = 1u;\nenable f16;\n\nfn d() {}\n";
        assert_eq!(directives_first(text), "// A.\n// B.\nenable f16;\nconst C: u32 = 1u;\n\nfn d() {}\n");
    }

    #[test]
    fn comments_of_any_length_are_taken() {
        let text = "//\n//\nfn used() {\n}\nconst A: u32 = used();\n";
        assert_eq!(without_unused(text), text);
    }

    #[test]
    fn what_nothing_names_is_left_out() {
        let text = "const A: u32 = 1u;\n\n// Of no use.\nfn unused() -> u32 {\n    return used(A);\n}\n\n\
            // Named by a comment alone: unused().\nfn used(a: u32) -> Pair {\n    return a;\n}\nstruct Pair {\n    a:
            // u32,\n}\n\
            struct Single {\n    a: u32,\n}\nfn short() -> u32 { return 1u; }\n@compute @workgroup_size(1)\nfn main() {\n    let short = used(1u);\n}\n";
        let kept = "const A: u32 = 1u;\n\n\
            // Named by a comment alone: unused().\nfn used(a: u32) -> Pair {\n    return a;\n}\nstruct Pair {\n    a:
            // u32,\n}\n\
            @compute @workgroup_size(1)\nfn main() {\n    let short = used(1u);\n}\n";
        assert_eq!(without_unused(text), kept);
    }
}
