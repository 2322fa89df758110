//! Bodies of requests to the server: read as each route reads them, with their images; what they ask for is cancelled.

#![no_main]

use std::sync::LazyLock;

use flamant::serve::{Settings, WireProbe};
use flamant::{AsyncEngine, Engine, Limits, Options};

/// Small, so that what is answered is answered soon.
static PROBE: LazyLock<WireProbe> = LazyLock::new(|| {
    let options = Options::default().threads(1).limits(Limits::default().max_sequences(1));
    let engine = AsyncEngine::new(Engine::demo(&options).unwrap()).unwrap();
    WireProbe::new(engine, Settings::default().images_max(4).pixels_max(1 << 14).body_max(1 << 16)).unwrap()
});

libfuzzer_sys::fuzz_target!(|data: (u8, &[u8])| {
    let (route, body) = data;
    let routes = WireProbe::ROUTES;
    if let Err(error) = PROBE.read(routes[usize::from(route) % routes.len()], body) {
        assert!(error.len() < 4000 && !error.contains(char::is_control), "more than a line: {error}");
    }
});
