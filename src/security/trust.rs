//! stub
/// stub
#[derive(Clone, Debug)]
pub struct Trust;
/// stub
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {}
