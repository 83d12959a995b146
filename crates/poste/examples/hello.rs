//! Two programs that meet at an address: `hello send` and `hello recv`, in either order.
//!
//! `cargo run -p poste --example hello -- recv` in one terminal, `… -- send` in another. A second
//! argument is another address, such as `unix:/run/user/1000/hello`: the receiver first, then.

use std::env::args;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = args().nth(2).unwrap_or_else(|| "mq:/hello".to_owned());
    match args().nth(1).as_deref() {
        Some("send") => {
            let mut sender = poste::Sender::create(&address)?;
            sender.send("hello")?;
        }
        Some("recv") => {
            let mut receiver = poste::Receiver::create(&address)?;
            println!("{}", receiver.recv()?.text()?);
        }
        _ => eprintln!("usage: hello send|recv [ADDRESS]"),
    }
    Ok(())
}
