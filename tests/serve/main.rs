//! The server over its sockets: what it answers on the model in the program, to clients as clients are, to hostile and
//! to patient ones.

mod bounds;
mod client;
mod door;
mod ending;
mod hangups;
mod hostile;
mod routes;
mod served;
mod wire;
