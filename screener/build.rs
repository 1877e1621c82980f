//! Builds the kernel half and puts it at `OUT_DIR/screener.bpf.o`, for the daemon to carry within itself.
//!
//! `SCREENER_BPF_OBJECT` names an object that was built elsewhere, and then nothing is compiled here.

#[path = "../xtask/src/bpf_object.rs"]
mod bpf_object;

fn main() {
    let object = bpf_object::Object {
        binary: "screener-ebpf",
        features: "",
        file: "screener.bpf.o",
        variable: "SCREENER_BPF_OBJECT",
    };
    object.make();
}
