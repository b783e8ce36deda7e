//! Compiles the BPF programs in `bpf/` with the system's clang, against the kernel headers of the
//! system and libbpf's of `libbpf-sys`, the very libbpf that will load them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const PROGRAMS: [&str; 6] = ["port", "uplink", "inward", "pod", "trunk", "hostflow"];

fn main() {
    let source = PathBuf::from("bpf");
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    for program in PROGRAMS {
        compile(&source.join(format!("{program}.bpf.c")), &target.join(format!("{program}.bpf.o")));
    }
}

fn compile(source: &Path, object: &Path) {
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let libbpf = env::var_os("DEP_BPF_INCLUDE").expect("libbpf-sys tells where its headers are");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target's architecture");
    let endian = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    };
    let status = Command::new(&clang)
        .args(["-target", endian, "-mcpu=v3", "-O2", "-g"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
        .arg("-isystem")
        .arg(libbpf)
        // <asm/types.h>, which clang does not look for when the target is not the host.
        .arg(format!("-idirafter/usr/include/{arch}-linux-gnu"))
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(_) => panic!("{} does not compile", source.display()),
        Err(error) => panic!("cannot run {}: {error}; install clang", Path::new(&clang).display()),
    }
}
