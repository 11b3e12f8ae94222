// The matrices of F(4x4, 3x3): 6x6 inputs for 4x4 outputs, with the points 0, 1, -1, 2, -2 and infinity.

fn input_line(d: array<f32, 6>) -> array<f32, 6> {
    let even = d[4] - 4.0 * d[2];
    let odd = d[3] - 4.0 * d[1];
    let even2 = d[4] - d[2];
    let odd2 = 2.0 * (d[3] - d[1]);
    return array<f32, 6>(
        4.0 * d[0] - 5.0 * d[2] + d[4],
        even + odd,
        even - odd,
        even2 + odd2,
        even2 - odd2,
        4.0 * d[1] - 5.0 * d[3] + d[5],
    );
}

fn output_line(m: array<f32, 6>) -> array<f32, 4> {
    let sum = m[1] + m[2];
    let difference = m[1] - m[2];
    let sum2 = m[3] + m[4];
    let difference2 = m[3] - m[4];
    return array<f32, 4>(
        m[0] + sum + sum2,
        difference + 2.0 * difference2,
        sum + 4.0 * sum2,
        difference + 8.0 * difference2 + m[5],
    );
}
