// What happens to an accumulator before it is stored. The sum comes with its bias; the host supplies
// `activate`, `activate4`, `residual_at`, `residual4_at` and where the residual is added.

fn epilogue(sum: f32, at: u32) -> f32 {
    if RESIDUAL_BEFORE {
        return activate(sum + residual_at(at));
    }
    if RESIDUAL_AFTER {
        return activate(sum) + residual_at(at);
    }
    return activate(sum);
}

fn epilogue4(sum: vec4<f32>, at: vec4<u32>) -> vec4<f32> {
    if RESIDUAL_BEFORE {
        return activate4(sum + residual4_at(at));
    }
    if RESIDUAL_AFTER {
        return activate4(sum) + residual4_at(at);
    }
    return activate4(sum);
}
