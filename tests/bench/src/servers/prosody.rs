//! Prosody, with a SOCKS5 proxy for bytestreams.

use std::{fs, path::Path, process::Command};

use super::{
    ACCOUNTS, HOSTS, Limited, PASSWORD, Server, Skipped, folder, free_port, is_installed, loopback, spawn,
    write,
};

/// Its proxy for SOCKS5 bytestreams.
pub(crate) const PROXY: &str = "proxy.montague.lit";

pub(super) async fn start(limited: Limited) -> Result<Server, Skipped> {
    if !is_installed("prosody") {
        return Err(Skipped("there is no `prosody` in PATH (Debian: apt-get install prosody)".to_owned()));
    }
    let (folder, certificate) = folder();
    accounts(folder.path());
    let port = free_port();
    write(folder.path(), "prosody.cfg.lua", &configuration(folder.path(), limited, port));
    let mut command = Command::new("prosody");
    command.arg("--config").arg(folder.path().join("prosody.cfg.lua")).arg("-F");
    let mut process = spawn(folder, &mut command);
    process.says("prosody.log", "Activated service 'c2s' on [127.0.0.1]").await;
    Ok(Server { address: loopback(port), certificate, _process: process })
}

fn accounts(folder: &Path) {
    for (user, host) in ACCOUNTS {
        let accounts = folder.join("data").join(host.replace('.', "%2e")).join("accounts");
        fs::create_dir_all(&accounts).expect("a temporary folder");
        let account = format!("return {{ [\"password\"] = \"{PASSWORD}\" }};\n");
        write(&accounts, &format!("{user}.dat"), &account);
    }
}

fn configuration(folder: &Path, limited: Limited, port: u16) -> String {
    let folder = folder.display();
    // As in /etc/prosody/prosody.cfg.lua of Debian 12.
    let limits = if limited == Limited::AsByDefault { "\"limits\";" } else { "" };
    let hosts: String = HOSTS.iter().map(|host| format!("VirtualHost \"{host}\"\n")).collect();
    let proxy_port = free_port();
    format!(
        r#"
        run_as_root = true -- in a container; of no effect for other users
        data_path = "{folder}/data"
        pidfile = "{folder}/prosody.pid"
        interfaces = {{ "127.0.0.1" }}
        c2s_ports = {{ {port} }}
        proxy65_interfaces = {{ "127.0.0.1" }}
        proxy65_ports = {{ {proxy_port} }}
        proxy65_address = "127.0.0.1"
        modules_enabled = {{
            "disco"; "roster"; "saslauth"; "smacks"; "carbons"; "blocklist"; "pep"; "ping"; "posix"; "tls"; {limits}
        }}
        modules_disabled = {{ "s2s"; "s2s_auth_certs" }}
        limits = {{ c2s = {{ rate = "10kb/s" }} }}
        authentication = "internal_hashed"
        c2s_require_encryption = true
        ssl = {{ certificate = "{folder}/cert.pem"; key = "{folder}/key.pem" }}
        log = {{ info = "{folder}/prosody.log" }}
        {hosts}
        Component "{PROXY}" "proxy65"
        "#
    )
}
