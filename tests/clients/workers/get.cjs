// Gets URLs as an ordinary Node program does.
//
// get.cjs LIBRARY URL   with the environment that the process has
// get.cjs LIBRARY       for each line of standard input: a URL and variables between tabs; answers with one line.
//                       Node's own clients read the variables when the process starts; here, with --expose-internals,
//                       they are set up for each line as lib/internal/process/pre_execution.js and lib/_http_agent.js do.
'use strict';
const readline = require('node:readline');
const [library, only] = process.argv.slice(2);
const TIMEOUT = 20_000;

const plain = (field) => field.replace(/\\(.)/g, (_, c) => ({ t: '\t', n: '\n' })[c] ?? c);
const isEnabled = () => process.env.NODE_USE_ENV_PROXY === '1';

async function undici(url) {
  const { EnvHttpProxyAgent, request } = require('undici');
  const dispatcher = new EnvHttpProxyAgent();
  try {
    const answer = await request(url, { dispatcher, signal: AbortSignal.timeout(TIMEOUT) });
    await answer.body.text();
  } finally {
    await dispatcher.destroy();
  }
}

// What fetch uses unless it is told otherwise.
let direct;
async function nodeFetch(url) {
  if (!only) {
    const { setGlobalDispatcher, getGlobalDispatcher, EnvHttpProxyAgent } = require('internal/deps/undici/undici');
    direct ??= getGlobalDispatcher();
    const { http_proxy, https_proxy, HTTP_PROXY, HTTPS_PROXY } = process.env;
    const agent =
      isEnabled() && (http_proxy || https_proxy || HTTP_PROXY || HTTPS_PROXY) ? new EnvHttpProxyAgent() : direct;
    setGlobalDispatcher(agent);
  }
  await (await fetch(url, { signal: AbortSignal.timeout(TIMEOUT) })).text();
}

function nodeHttp(url) {
  const module = require(url.toLowerCase().startsWith('https') ? 'node:https' : 'node:http');
  let agent;
  if (!only) {
    const { EnvHttpProxyAgent } = require('internal/deps/undici/undici');
    const { getGlobalAgent } = require('internal/http');
    const { http_proxy, https_proxy, HTTP_PROXY, HTTPS_PROXY } = process.env;
    if (isEnabled() && (http_proxy || https_proxy || HTTP_PROXY || HTTPS_PROXY)) new EnvHttpProxyAgent();
    agent = getGlobalAgent(isEnabled() ? process.env : undefined, module.Agent);
  }
  return new Promise((resolve, reject) => {
    const request = module.get(url, { agent, timeout: TIMEOUT }, (answer) => {
      answer.resume().on('end', resolve).on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error('timeout'))).on('error', reject);
  }).finally(() => agent?.destroy());
}

async function axios(url) {
  await require('axios').get(url, { timeout: TIMEOUT, validateStatus: () => true, maxRedirects: 0 });
}

const get = { undici, 'node-fetch': nodeFetch, 'node-http': nodeHttp, axios }[library];
async function attempt(url) {
  try {
    await get(url);
    return 'ok';
  } catch (error) {
    return `error ${error} ${error.cause ?? ''}`.replaceAll('\n', ' ').slice(0, 200);
  }
}

async function main() {
  if (only) {
    console.log(await attempt(only));
    process.exit();
  }
  const base = { PATH: process.env.PATH };
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [url, ...variables] = line.split('\t').map(plain);
    for (const name of Object.keys(process.env)) delete process.env[name];
    Object.assign(process.env, base);
    for (const variable of variables) {
      const at = variable.indexOf('=');
      process.env[variable.slice(0, at)] = variable.slice(at + 1);
    }
    console.log(await attempt(url));
  }
}
main();
