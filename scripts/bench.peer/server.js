// The peer of the case http: what a small service in node does for the same two calls.
// usage: node server.js PORT DIRECTORY PROCESSES; DIRECTORY/job.json is the job to serve.
// Prints the database driver when it serves.
'use strict';
const cluster = require('cluster');
const fs = require('fs');
const path = require('path');
const { randomUUID } = require('crypto');

const [port, directory, processes] = process.argv.slice(2);
const job = JSON.parse(fs.readFileSync(path.join(directory, 'job.json')));

function open() {
  const file = path.join(directory, 'peer.db');
  try {
    const Database = require('better-sqlite3');
    const db = new Database(file);
    return { name: `better-sqlite3 ${require('better-sqlite3/package.json').version}`, db };
  } catch (error) {
    const { DatabaseSync } = require('node:sqlite'); // where node has one of its own
    return { name: 'node:sqlite', db: new DatabaseSync(file) };
  }
}

const { name, db } = open();
db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000');

// A column for each plain member of the job, as its answer has them.
const members = Object.keys(job).filter((key) => !Array.isArray(job[key]));
const lists = Object.keys(job).filter((key) => Array.isArray(job[key]));
const plain = (value) => (typeof value === 'boolean' ? Number(value) : value);

function create() {
  db.exec('CREATE TABLE settings (id TEXT PRIMARY KEY, name TEXT, priority INTEGER, ' +
          'rpo INTEGER, lim INTEGER) WITHOUT ROWID');
  db.exec(`CREATE TABLE jobs (${members.map((m) => `${m}${m === 'Id' ? ' TEXT PRIMARY KEY' : ''}`)}) WITHOUT ROWID`);
  db.prepare(`INSERT INTO jobs VALUES (${members.map(() => '?')})`)
    .run(...members.map((m) => plain(job[m])));
}

function schemaOf(value) {
  if (Array.isArray(value)) return { type: 'array', items: schemaOf(value[0]) };
  if (value === null) return { type: 'null' };
  if (typeof value === 'boolean') return { type: 'boolean' };
  return { type: typeof value === 'number' ? 'integer' : 'string' };
}

function serve() {
  const app = require('fastify')({ logger: false });
  const insert = db.prepare('INSERT INTO settings VALUES (?, ?, ?, ?, ?)');
  const select = db.prepare('SELECT * FROM jobs WHERE Id = ?');
  const settings = {
    type: 'object',
    required: ['ElementName'],
    additionalProperties: false,
    properties: {
      ElementName: { type: 'string', maxLength: 256 },
      ReplicationPriority: { type: 'integer' },
      DesiredRPO: { type: 'integer', minimum: 10 },
      BandwidthLimit: { type: 'integer', minimum: 0 }
    }
  };
  const answer = {
    type: 'object',
    properties: { Id: { type: 'string' }, Self: { type: 'string' }, ...settings.properties }
  };
  const jobAnswer = {
    type: 'object',
    properties: Object.fromEntries(Object.entries(job).map(([k, v]) => [k, schemaOf(v)]))
  };

  app.post('/settings', { schema: { body: settings, response: { 201: answer } } },
    (request, reply) => {
      const body = request.body;
      const id = randomUUID();
      insert.run(id, body.ElementName, body.ReplicationPriority ?? 2, body.DesiredRPO ?? 300,
        body.BandwidthLimit ?? 0);
      reply.code(201).header('Location', `/settings/${id}`)
        .send({ Id: id, Self: `/settings/${id}`, ...body });
    });
  app.get('/jobs/:id', { schema: { response: { 200: jobAnswer } } }, (request, reply) => {
    const row = select.get(request.params.id);
    if (!row) return reply.code(404).send();
    for (const list of lists) row[list] = job[list];
    reply.send(row);
  });
  return app.listen({ port: Number(port), host: '127.0.0.1' });
}

const ready = () => process.stdout.write(`${name}\n`);

if (Number(processes) === 1) {
  create();
  serve().then(ready);
} else if (cluster.isPrimary) {
  create();
  let up = 0;
  cluster.on('listening', () => { if (++up === Number(processes)) ready(); });
  for (let n = 0; n < Number(processes); n++) cluster.fork();
  process.on('SIGTERM', () => process.exit(0)); // the workers go with their channel
} else {
  serve();
}
