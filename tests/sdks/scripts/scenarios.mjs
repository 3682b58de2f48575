// What the Node scripts have in common: scenarios by name, run one after the other, a line of JSON for each.

const SCENARIO_TIMEOUT_MS = 60_000;

function within(milliseconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("It took too long.")), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Those with these names: each leaves what it found, or why it failed.
export async function run(scenarios, names, ...args) {
  for (const scenario of names) {
    let outcome;
    try {
      outcome = { found: await within(SCENARIO_TIMEOUT_MS, scenarios[scenario](...args)) };
    } catch (error) {
      outcome = { failed: String(error?.stack ?? error) };
    }
    process.stdout.write(`${JSON.stringify({ scenario, ...outcome })}\n`);
  }
  process.exit(0);
}

export async function gather(values) {
  const all = [];
  for await (const value of await values) all.push(value);
  return all;
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
