//! Checks that barriers and subgroup operations are in uniform control flow: all invocations of a workgroup reach them
//! together. naga does not check this. Control flow is not uniform if it depends on an invocation's index or on the
//! contents of memory.
//!
//! The analysis is coarser than WGSL's own, and at least as strict. A variable is uniform only if all values stored in
//! it are. After a `return`, `break` or `continue` that only some invocations take, the rest of the function or the
//! loop is not uniform.

use naga::{AddressSpace, Binding, Block, BuiltIn, Expression, Function, Handle, LocalVariable, Module, Statement};

/// Checks the only entry point of a module and all functions that it calls.
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
    /// Variables that are not uniform, because a value stored in them is not.
    varying: Vec<Handle<LocalVariable>>,
    /// Whether the results of calls are uniform, by the calls' expressions. Those that are not known yet are not in it.
    calls: Vec<(Handle<Expression>, bool)>,
    /// Whether the function's result is uniform.
    result: bool,
}

/// The control flow after a statement: whether it is uniform, and where some invocations left early.
#[derive(Clone, Copy)]
struct Flow {
    uniform: bool,
    /// Some invocations have left the loop, or the current iteration.
    left_loop: bool,
    /// Some invocations have left the function.
    left_function: bool,
}

impl Flow {
    fn is_uniform(self) -> bool {
        self.uniform && !self.left_loop && !self.left_function
    }

    /// Joins the end of a branch.
    fn join(&mut self, branch: Self) {
        self.left_loop |= branch.left_loop;
        self.left_function |= branch.left_function;
    }
}

impl<'a> Analysis<'a> {
    fn new(module: &'a Module, function: &'a Function, arguments: Vec<bool>) -> Self {
        Self { module, function, arguments, varying: Vec::new(), calls: Vec::new(), result: true }
    }

    /// Repeats the analysis until no more variables become varying. Returns whether the result is uniform, or the first
    /// barrier that is not in uniform control flow.
    fn run(mut self, uniform: bool) -> Result<bool, String> {
        loop {
            let (before, mut found) = (self.varying.len(), Vec::new());
            self.block(&self.function.body, Flow { uniform, left_loop: false, left_function: false }, &mut found);
            if self.varying.len() == before {
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
            Statement::Loop { body, continuing, break_if } => self.looped(body, continuing, *break_if, flow, found),
            Statement::Break | Statement::Continue => flow.left_loop |= !flow.is_uniform(),
            Statement::Return { value } => {
                self.result &= flow.is_uniform() && value.is_none_or(|value| self.is_uniform(value));
                flow.left_function |= !flow.is_uniform();
            }
            // Not the same for all: `is_uniform` knows no such expression.
            Statement::Atomic { .. } => {}
            Statement::Store { pointer, value } => self.store(*pointer, flow.is_uniform() && self.is_uniform(*value)),
            Statement::Call { function, arguments, result } => {
                self.call(&self.module.functions[*function], arguments, *result, *flow, found);
            }
            // Barriers, subgroup operations, and statements that no shader contains yet.
            other if !flow.is_uniform() => {
                let name = self.function.name.as_deref().unwrap_or("main");
                found.push(format!("in {name} only some invocations reach {other:?}"));
            }
            _ => {}
        }
    }

    /// A loop. If some invocations leave an iteration early, only the others run the further iterations.
    fn looped(
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
                // After the loop all invocations are together again, except those that left the function.
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
        // A callee may store anything through a pointer, so its variable counts as varying.
        for &argument in arguments {
            self.vary(argument);
        }
    }

    /// Handles a store. `uniform` is whether the value and the control flow are.
    fn store(&mut self, pointer: Handle<Expression>, uniform: bool) {
        if !(uniform && self.is_uniform(pointer)) {
            self.vary(pointer);
        }
    }

    /// Marks the local variable behind a pointer, if there is one, as varying.
    fn vary(&mut self, pointer: Handle<Expression>) {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(variable) if !self.varying.contains(&variable) => self.varying.push(variable),
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.vary(base),
            _ => {}
        }
    }

    /// Whether an expression is the same for all invocations of the workgroup. A pointer is, if it points to the same
    /// place for all.
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
            Expression::Load { pointer } => self.is_uniform(*pointer) && self.holds_uniform_value(*pointer),
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
            // This includes subgroup operations: their results are the same only in a subgroup.
            _ => false,
        }
    }

    /// Whether the value behind a pointer is the same for all: that of a parameter, or of a variable that is not
    /// varying.
    fn holds_uniform_value(&self, pointer: Handle<Expression>) -> bool {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(variable) => !self.varying.contains(&variable),
            Expression::GlobalVariable(variable) => {
                self.module.global_variables[variable].space == AddressSpace::Uniform
            }
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.holds_uniform_value(base),
            _ => false,
        }
    }
}

/// Programs with barriers in uniform control flow, and programs with barriers that are not.
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
