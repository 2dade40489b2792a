//! Makes up a secret for two bots to share, and prints it.
//!
//! ```text
//! cargo run --example secret
//! ```

use jingle_xmlstream::{Error, Secret};

fn main() -> Result<(), Error> {
    println!("{}", Secret::generate()?.as_str());
    Ok(())
}
