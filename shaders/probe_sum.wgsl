// What the probes of loads measure: eight loads a step, neighbours for neighbouring invocations.
//
// host     `load`

fn sum_of_loads(local: u32) -> f32 {
    var sum = vec4<f32>(0.0);
    var at = local;
    for (var step = 0u; step < params.work; step++) {
        let first = vec4<f32>(load(at), load(at + 64u), load(at + 128u), load(at + 192u));
        let second = vec4<f32>(load(at + 256u), load(at + 320u), load(at + 384u), load(at + 448u));
        sum = fma(first, second, sum);
        at += 512u;
    }
    return sum.x + sum.y + sum.z + sum.w;
}
