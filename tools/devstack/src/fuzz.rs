//! `fuzz`: generated requests. Schemathesis derives them from the contract, valid and invalid, alone and in sequences,
//! and checks every answer against it.
//!
//! It is a Python program, installed in a virtual environment under `target`. Each run has a fixed seed, so that a
//! finding can be reproduced, and its own guests, organization and project. Its configuration is in
//! `tools/devstack/schemathesis`.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Output, Stdio};

use anyhow::{Context as _, bail};
use atrium_harness::checkout::Checkout;
use atrium_harness::guest::{Guest, patiently};
use atrium_harness::interrupt::Interrupts;
use atrium_harness::screen::Screen;
use atrium_harness::stack::Stack;
use atrium_servers::folder::Folder;
use atrium_servers::packages;
use serde_json::json;
use tokio::process::Command;

/// The seed and the options of each run: what does not depend on the seed is done once.
const RUNS: [(&str, &[&str]); 3] = [("1", &["--max-examples", "5"]), ("2", RANDOM), ("3", RANDOM)];
const RANDOM: &[&str] = &["--max-examples", "8", "--phases", "fuzzing,stateful"];
/// Checks that the environment can be created; Schemathesis needs Python 3.11.
const PROBE: &str = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";

/// Runs it; without Python, says that it is skipped.
///
/// # Errors
/// When Schemathesis cannot be installed, or the stack does not start.
pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    screen.title("Generated requests");
    if !python(&screen).await? {
        screen.note("skipped: Schemathesis needs Python 3.11 with `venv`, which is not installed");
        return Ok(ExitCode::SUCCESS);
    }
    let files = Checkout::find()?.root().join("tools/devstack/schemathesis");
    let program = screen.step("Schemathesis", installed(&files)).await?;
    let folder = Folder::create()?;
    let stack = Stack::for_one_command(&folder, &screen).await?;
    let outcome = tokio::select! {
        outcome = run_all(&stack, &program, &files, &folder, &screen) => outcome,
        _ = interrupts.next() => Ok(false),
    };
    stack.stop().await;
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all of them concurrently; shows the output of those that found something.
async fn run_all(
    stack: &Stack,
    program: &Path,
    files: &Path,
    folder: &Folder,
    screen: &Screen,
) -> anyhow::Result<bool> {
    let openapi = Checkout::find()?.openapi();
    let mut runs = tokio::task::JoinSet::new();
    for (seed, arguments) in RUNS {
        let mut command = Command::new(program);
        command
            .arg("--config-file")
            .arg(files.join("schemathesis.toml"))
            .arg("run")
            .arg(&openapi)
            .args(["--no-color", "--seed", seed])
            .args(arguments)
            .envs(prepared(stack).await?)
            .env("FUZZ_HOOKS", files.join("hooks.py"))
            // Its database of earlier runs stays out of the checkout, and out of this run.
            .current_dir(folder.private(&format!("seed-{seed}"), None)?)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        runs.spawn(async move { (seed, command.output().await) });
    }
    let mut clean = true;
    while let Some(run) = runs.join_next().await {
        let (seed, output) = run?;
        let Output { status, stdout, stderr } = output.context("cannot run Schemathesis")?;
        let text = String::from_utf8_lossy(&stdout);
        if status.success() {
            screen.note(&format!("seed {seed}: {}", totals(&text)));
        } else {
            clean = false;
            screen.alert(&format!("seed {seed}: {status}"));
            screen.text(&format!("{text}{}", String::from_utf8_lossy(&stderr)));
        }
    }
    Ok(clean)
}

/// Real tokens and ids, under the names that the configuration uses.
async fn prepared(stack: &Stack) -> anyhow::Result<Vec<(&'static str, String)>> {
    let client = stack.client();
    let owner = Guest::sign_in(&client).await?;
    let creation = owner.create_organization("Fuzzed").await?;
    owner.committed(&creation.operation).await?;
    let org = creation.org;
    let (project, spare_project) =
        (owner.project(&org, "Fuzzed").await?, owner.project(&org, "Spare").await?);
    let (window, spare_window) =
        (owner.open_chat(&org, &project).await?, owner.open_chat(&org, &project).await?);
    let invitations = format!("/v1/orgs/{org}/invitations");
    let invite = || client.bearer(token(&owner)).post(&invitations).json(json!({ "role": "viewer" }));
    let invitation = patiently(invite).await?.expect_status(201)?.at("/id");
    let (member, leaving) = (owner.invite_guest(&org, "member").await?, Guest::sign_in(&client).await?);
    let bystander = owner.invite_guest(&org, "viewer").await?;
    let staying = patiently(|| client.post("/v1/auth/guest")).await?.expect_status(201)?;
    let cookies = staying.headers.get_all("set-cookie").iter().filter_map(|cookie| cookie.to_str().ok());
    let refresh = cookies
        .filter_map(|cookie| cookie.strip_prefix("atrium_refresh=")?.split(';').next())
        .next()
        .context("a sign-in sets the refresh cookie")?
        .to_owned();
    Ok(vec![
        ("ATRIUM_URL", stack.url().to_owned()),
        ("FUZZ_TOKEN", token(&owner)),
        ("FUZZ_MEMBER_TOKEN", token(&member)),
        ("FUZZ_LEAVING_TOKEN", token(&leaving)),
        ("FUZZ_REFRESH_TOKEN", refresh),
        ("FUZZ_ORG", org),
        ("FUZZ_SPARE_ORG", owner.organization("Spare").await?),
        ("FUZZ_USER", bystander.id),
        ("FUZZ_PROJECT", project),
        ("FUZZ_SPARE_PROJECT", spare_project),
        ("FUZZ_SESSION", window.session),
        ("FUZZ_SPARE_SESSION", spare_window.session),
        ("FUZZ_OPERATION", creation.operation),
        ("FUZZ_INVITATION", invitation),
    ])
}

fn token(guest: &Guest) -> String {
    guest.client.token().unwrap_or_default().to_owned()
}

/// The line of its summary that has the numbers.
fn totals(text: &str) -> &str {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("Test cases:")).skip(1);
    lines.next().unwrap_or("no summary").trim()
}

/// Whether there is a Python that can make environments, installed if that may be done.
async fn python(screen: &Screen) -> anyhow::Result<bool> {
    if probe().await {
        return Ok(true);
    }
    if packages::may_install() {
        screen.note("Python 3.11 with `venv`: not found; installing it from this system's packages");
        packages::install(&["python3", "python3-venv"])?;
    }
    Ok(probe().await)
}

async fn probe() -> bool {
    let quiet = Command::new("python3")
        .args(["-c", PROBE])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    quiet.is_ok_and(|status| status.success())
}

/// Schemathesis, installed if it is missing or has another version.
async fn installed(files: &Path) -> anyhow::Result<PathBuf> {
    let wanted = files.join("requirements.txt");
    let environment = Checkout::find()?.root().join("target/schemathesis");
    let (program, have) = (environment.join("bin/st"), environment.join("requirements.txt"));
    let versions = std::fs::read(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if program.is_file() && std::fs::read(&have).is_ok_and(|have| have == versions) {
        return Ok(program);
    }
    must(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment)).await?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    must(Command::new(environment.join("bin/python")).args(pip).arg(&wanted)).await?;
    std::fs::write(have, versions)?;
    Ok(program)
}

async fn must(command: &mut Command) -> anyhow::Result<()> {
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !status.success() {
        let program = command.as_std().get_program().display();
        bail!("{program} ended with {status}:\n{}", String::from_utf8_lossy(&stderr));
    }
    Ok(())
}
