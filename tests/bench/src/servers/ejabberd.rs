//! ejabberd, as whoever runs the benchmarks: without `ejabberdctl`, which wants a user of its own, and without Erlang's
//! distribution, so that it meets no other node.

use std::{fs, path::Path, process::Command};

use super::{
    ACCOUNTS, HOSTS, Limited, PASSWORD, Server, Skipped, folder, free_port, is_installed, loopback, spawn,
    write,
};

/// It knows where the packages of Erlang are.
const SCRIPTS: [&str; 2] = ["/usr/sbin/ejabberdctl", "/usr/local/sbin/ejabberdctl"];

/// What it says when the accounts are made.
const READY: &str = "ACCOUNTS MADE";

pub(super) async fn start(limited: Limited) -> Result<Server, Skipped> {
    let packages = packages()?;
    let (folder, certificate) = folder();
    let port = free_port();
    let path = folder.path().to_owned();
    write(&path, "ejabberd.yml", &configuration(&path, limited, port));
    let mut command = Command::new("erl");
    command
        .env("EJABBERD_CONFIG_PATH", path.join("ejabberd.yml"))
        .env("EJABBERD_LOG_PATH", path.join("ejabberd.log"))
        .env("ERL_CRASH_DUMP", path.join("crash.dump"))
        .env("ERL_LIBS", packages)
        .env("HOME", &path)
        .args(["-noinput", "-mnesia", "dir", &format!("\"{}\"", path.join("spool").display())])
        .args(["-s", "ejabberd", "-eval", &make_accounts()]);
    let mut process = spawn(folder, &mut command);
    process.says("output", READY).await;
    process.says("output", "Start accepting TCP connections").await;
    Ok(Server { address: loopback(port), certificate, _process: process })
}

/// Where the packages of Erlang are, ejabberd's among them.
fn packages() -> Result<String, Skipped> {
    if !is_installed("erl") {
        return Err(Skipped("there is no `erl` in PATH (Debian: apt-get install ejabberd)".to_owned()));
    }
    let scripts = SCRIPTS.iter().filter_map(|script| fs::read_to_string(script).ok());
    let packages = scripts.flat_map(|script| {
        let lines = script.lines().filter_map(|line| line.strip_prefix("ERL_LIBS="));
        lines.map(|value| value.trim_matches(['\'', '"']).to_owned()).collect::<Vec<_>>()
    });
    packages.last().ok_or_else(|| {
        Skipped(format!("there is no ejabberd: none of {SCRIPTS:?} says where it is (ERL_LIBS)"))
    })
}

/// In Erlang.
fn make_accounts() -> String {
    let account = |(user, host): (&str, &str)| {
        format!("ok = ejabberd_auth:try_register(<<\"{user}\">>, <<\"{host}\">>, <<\"{PASSWORD}\">>), ")
    };
    let accounts: String = ACCOUNTS.into_iter().map(account).collect();
    format!("{accounts} io:format(\"{READY}~n\").")
}

fn configuration(folder: &Path, limited: Limited, port: u16) -> String {
    let hosts: String = HOSTS.iter().map(|host| format!("  - {host}\n")).collect();
    let folder = folder.display();
    // As in /etc/ejabberd/ejabberd.yml of Debian 12.
    let shaper = if limited == Limited::AsByDefault { "    shaper: c2s_shaper\n" } else { "" };
    format!(
        "hosts:\n{hosts}\
         loglevel: info\n\
         certfiles:\n  - {folder}/cert.pem\n  - {folder}/key.pem\n\
         shaper:\n  normal:\n    rate: 3000\n    burst_size: 20000\n\
         shaper_rules:\n  c2s_shaper: normal\n\
         listen:\n  -\n    port: {port}\n    ip: \"127.0.0.1\"\n    module: ejabberd_c2s\n    \
         max_stanza_size: 262144\n    starttls_required: true\n{shaper}\
         modules:\n  mod_caps: {{}}\n  mod_disco: {{}}\n  mod_ping: {{}}\n  mod_roster: {{}}\n  mod_stream_mgmt: {{}}\n"
    )
}
