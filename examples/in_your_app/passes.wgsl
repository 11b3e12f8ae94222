// The program's own passes. Planes of red, green and blue, one after the other, form an NCHW tensor.

@group(0) @binding(0) var<storage, read_write> planes: array<f32>;
@group(0) @binding(1) var<storage, read_write> rgba: array<u32>;

const SIZE: u32 = 256u;
const PIXELS: u32 = SIZE * SIZE;

@compute @workgroup_size(64)
fn draw(@builtin(global_invocation_id) id: vec3<u32>) {
    let product = (id.x % SIZE) * (id.x / SIZE);
    for (var channel = 0u; channel < 3u; channel++) {
        planes[channel * PIXELS + id.x] = f32((channel + 1u) * product / 4096u % 2u);
    }
}

@compute @workgroup_size(64)
fn pack(@builtin(global_invocation_id) id: vec3<u32>) {
    let colour = vec3(planes[id.x], planes[PIXELS + id.x], planes[2u * PIXELS + id.x]);
    rgba[id.x] = pack4x8unorm(vec4(colour, 1.0));
}
