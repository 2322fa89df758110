//! The C file that calls libjpeg, against the headers that the crate mozjpeg-sys compiled it with.

use std::env;

/// Builds a static library and has it linked.
///
/// # Errors
/// No C compiler; what it says.
pub fn build() -> Result<(), String> {
    const SOURCE: &str = "src/image/jpeg.c";
    println!("cargo::rerun-if-changed={SOURCE}");
    let headers = env::var_os("DEP_JPEG_INCLUDE").ok_or("DEP_JPEG_INCLUDE: expected folders, found nothing")?;
    let mut settings = cc::Build::new();
    settings.file(SOURCE).includes(env::split_paths(&headers)).std("c11").warnings(true).extra_warnings(true);
    settings.try_compile("flamant_jpeg").map_err(|error| format!("JPEG needs a C compiler: {error}"))
}
