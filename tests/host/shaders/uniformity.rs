//! Whether all invocations of a workgroup come to each barrier and each subgroup operation together, which naga does not
//! check: none may stand where it depends on an invocation's number, or on what memory holds, whether it is reached.
//!
//! Coarser than WGSL's own analysis, and never kinder: a variable is uniform only if all that is ever stored in it is, and
//! after a `return`, `break` or `continue` that only some invocations take, the rest of the function or the loop is not.

use naga::{AddressSpace, Binding, Block, BuiltIn, Expression, Function, Handle, LocalVariable, Module, Statement};

/// Checks the only entry point of a module and all that it calls.
pub fn check(module: &Module) -> Result<(), String> {
    let function = &module.entry_points[0].function;
    let uniform = |binding: &Option<Binding>| {
        matches!(binding, Some(Binding::BuiltIn(BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups)))
    };
    let arguments = function.arguments.iter().map(|argument| uniform(&argument.binding)).collect();
    Analysis::new(module, function, arguments).run(true).map(|_| ())
}

/// One function, called with arguments that are uniform or not.
struct Analysis<'a> {
    module: &'a Module,
    function: &'a Function,
    arguments: Vec<bool>,
    /// Variables in which something was stored that is not uniform.
    varied: Vec<Handle<LocalVariable>>,
    /// What calls give, by their expressions; what is not in it is not known yet.
    calls: Vec<(Handle<Expression>, bool)>,
    /// Whether what it returns is uniform.
    result: bool,
}

/// What control flow is like behind a statement: uniform, or left early by some invocations.
#[derive(Clone, Copy)]
struct Flow {
    uniform: bool,
    /// Some have left the loop, or its round.
    left_loop: bool,
    /// Some have left the function.
    left_function: bool,
}

impl Flow {
    fn is_uniform(self) -> bool {
        self.uniform && !self.left_loop && !self.left_function
    }

    /// As it is behind a branch of the flow.
    fn join(&mut self, branch: Self) {
        self.left_loop |= branch.left_loop;
        self.left_function |= branch.left_function;
    }
}

impl<'a> Analysis<'a> {
    fn new(module: &'a Module, function: &'a Function, arguments: Vec<bool>) -> Self {
        Self { module, function, arguments, varied: Vec::new(), calls: Vec::new(), result: true }
    }

    /// Goes over the function until nothing more varies; then barriers count. Whether the result is uniform.
    fn run(mut self, uniform: bool) -> Result<bool, String> {
        loop {
            let (before, mut found) = (self.varied.len(), Vec::new());
            self.block(&self.function.body, Flow { uniform, left_loop: false, left_function: false }, &mut found);
            if self.varied.len() == before {
                return found.into_iter().next().map_or(Ok(self.result && uniform), Err);
            }
        }
    }

    fn block(&mut self, block: &'a Block, mut flow: Flow, found: &mut Vec<String>) -> Flow {
        for statement in block {
            self.statement(statement, &mut flow, found);
        }
        flow
    }

    fn statement(&mut self, statement: &'a Statement, flow: &mut Flow, found: &mut Vec<String>) {
        match statement {
            Statement::Emit(_) => {}
            Statement::Block(block) => *flow = self.block(block, *flow, found),
            Statement::If { condition, accept, reject } => {
                let branch = Flow { uniform: flow.is_uniform() && self.is_uniform(*condition), ..*flow };
                for block in [accept, reject] {
                    let end = self.block(block, branch, found);
                    flow.join(end);
                }
            }
            Statement::Switch { selector, cases } => {
                let branch = Flow { uniform: flow.is_uniform() && self.is_uniform(*selector), ..*flow };
                for case in cases {
                    let end = self.block(&case.body, branch, found);
                    flow.join(end);
                }
            }
            Statement::Loop { body, continuing, break_if } => self.round(body, continuing, *break_if, flow, found),
            Statement::Break | Statement::Continue => flow.left_loop |= !flow.is_uniform(),
            Statement::Return { value } => {
                self.result &= flow.is_uniform() && value.is_none_or(|value| self.is_uniform(value));
                flow.left_function |= !flow.is_uniform();
            }
            Statement::Store { pointer, value } => self.store(*pointer, flow.is_uniform() && self.is_uniform(*value)),
            Statement::Call { function, arguments, result } => {
                self.call(&self.module.functions[*function], arguments, *result, *flow, found);
            }
            // Barriers, subgroup operations, and what no shader has yet.
            other if !flow.is_uniform() => {
                let name = self.function.name.as_deref().unwrap_or("main");
                found.push(format!("in {name} only some invocations come to {other:?}"));
            }
            _ => {}
        }
    }

    /// A loop: where some leave a round early, all further rounds are theirs alone.
    fn round(
        &mut self,
        body: &'a Block,
        continuing: &'a Block,
        break_if: Option<Handle<Expression>>,
        flow: &mut Flow,
        found: &mut Vec<String>,
    ) {
        let mut inside = *flow;
        loop {
            let mut barriers = Vec::new();
            let end = self.block(body, inside, &mut barriers);
            let end = self.block(continuing, end, &mut barriers);
            let stays = break_if.is_none_or(|condition| self.is_uniform(condition));
            let left = end.left_loop || end.left_function || !stays;
            if !left || !inside.is_uniform() {
                found.append(&mut barriers);
                // Behind the loop those that left it wait for the others.
                flow.left_function |= end.left_function;
                return;
            }
            inside.uniform = false;
        }
    }

    fn call(
        &mut self,
        callee: &'a Function,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
        flow: Flow,
        found: &mut Vec<String>,
    ) {
        let uniform = arguments.iter().map(|&argument| self.is_uniform(argument)).collect();
        let outcome = Analysis::new(self.module, callee, uniform).run(flow.is_uniform());
        if let Some(result) = result {
            self.calls.retain(|(call, _)| *call != result);
            self.calls.push((result, outcome == Ok(true)));
        }
        found.extend(outcome.err());
        // What a callee may store through a pointer nobody follows.
        for &argument in arguments {
            self.vary(argument);
        }
    }

    /// A store of what is the same for all, or is not.
    fn store(&mut self, pointer: Handle<Expression>, same: bool) {
        if !(same && self.is_uniform(pointer)) {
            self.vary(pointer);
        }
    }

    /// Notes that the variable behind a pointer, if it is one, is not uniform.
    fn vary(&mut self, pointer: Handle<Expression>) {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(variable) if !self.varied.contains(&variable) => self.varied.push(variable),
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.vary(base),
            _ => {}
        }
    }

    /// Whether an expression is the same for all invocations of the workgroup; of a pointer, whether it points to the
    /// same place.
    fn is_uniform(&self, expression: Handle<Expression>) -> bool {
        let all = |expressions: &[Handle<Expression>]| expressions.iter().all(|&inner| self.is_uniform(inner));
        match &self.function.expressions[expression] {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::ZeroValue(_)
            | Expression::GlobalVariable(_)
            | Expression::LocalVariable(_) => true,
            Expression::FunctionArgument(index) => self.arguments[*index as usize],
            Expression::CallResult(_) => {
                self.calls.iter().find(|(call, _)| *call == expression).is_none_or(|(_, uniform)| *uniform)
            }
            Expression::Load { pointer } => self.is_uniform(*pointer) && self.holds_the_same(*pointer),
            Expression::Compose { components, .. } => all(components),
            Expression::Access { base, index } => all(&[*base, *index]),
            Expression::Binary { left, right, .. } => all(&[*left, *right]),
            Expression::Select { condition, accept, reject } => all(&[*condition, *accept, *reject]),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                [Some(*arg), *arg1, *arg2, *arg3].into_iter().flatten().all(|inner| self.is_uniform(inner))
            }
            Expression::AccessIndex { base: inner, .. }
            | Expression::Splat { value: inner, .. }
            | Expression::Swizzle { vector: inner, .. }
            | Expression::Unary { expr: inner, .. }
            | Expression::Relational { argument: inner, .. }
            | Expression::As { expr: inner, .. } => self.is_uniform(*inner),
            // Among them the results of subgroup operations: they are a subgroup's, not the workgroup's.
            _ => false,
        }
    }

    /// Whether what a pointer points to is the same for all: parameters are, and variables with uniform values.
    fn holds_the_same(&self, pointer: Handle<Expression>) -> bool {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(variable) => !self.varied.contains(&variable),
            Expression::GlobalVariable(variable) => {
                self.module.global_variables[variable].space == AddressSpace::Uniform
            }
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.holds_the_same(base),
            _ => false,
        }
    }
}

/// Programs whose barriers are in order, and such whose are not.
#[test]
fn the_analysis_tells_uniform_from_divergent() {
    let uniform = [
        "if workgroup.x > params { return; } workgroupBarrier();",
        "for (var i = workgroup.x; i < params; i++) { workgroupBarrier(); }",
        "if local > 3u { shared_value = local; } workgroupBarrier();",
        "for (var i = local; i < 9u; i += 4u) { shared_value = i; } workgroupBarrier();",
        "barrier_if(params);",
        "let all = same(workgroup.x); if all > 2u { workgroupBarrier(); }",
    ];
    let divergent = [
        "if local > 3u { workgroupBarrier(); }",
        "if local > 3u { return; } workgroupBarrier();",
        "if input[0] > 3u { return; } workgroupBarrier();",
        "if shared_value > 3u { workgroupBarrier(); }",
        "for (var i = local; i < 9u; i++) { workgroupBarrier(); }",
        "for (var i = 0u; i < params; i++) { if i + local > 5u { break; } workgroupBarrier(); }",
        "for (var i = 0u; i < params; i++) { workgroupBarrier(); if i + local > 5u { continue; } }",
        "var bound = 3u; if local > 2u { bound = 4u; } for (var i = 0u; i < bound; i++) { workgroupBarrier(); }",
        "var bound = 3u; put(&bound, local); if bound > 2u { workgroupBarrier(); }",
        "barrier_if(local);",
        "let all = same(local); if all > 2u { workgroupBarrier(); }",
        "if leaves(local) > 2u { workgroupBarrier(); }",
        "switch local { case 1u: { workgroupBarrier(); } default: {} }",
        "loop { workgroupBarrier(); continuing { break if local > 2u; } }",
        "while local > 2u { while params > 2u { if local == 3u { return; } } } workgroupBarrier();",
    ];
    let programs = uniform.map(|body| (body, true)).into_iter().chain(divergent.map(|body| (body, false)));
    for (body, expected) in programs {
        let wgsl = format!(
            "@group(0) @binding(0) var<uniform> params: u32;
            @group(0) @binding(1) var<storage, read> input: array<u32>;
            var<workgroup> shared_value: u32;
            fn put(bound: ptr<function, u32>, value: u32) {{ *bound = value; }}
            fn same(value: u32) -> u32 {{ return value + 1u; }}
            fn leaves(value: u32) -> u32 {{ if value > 2u {{ return 1u; }} return 4u; }}
            fn barrier_if(value: u32) {{ if value > 2u {{ workgroupBarrier(); }} }}
            @compute @workgroup_size(8) fn main(
                @builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {{ {body} }}"
        );
        let module =
            naga::front::wgsl::parse_str(&wgsl).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&wgsl)));
        assert_eq!(check(&module).is_ok(), expected, "{body}: {:?}", check(&module));
    }
}
