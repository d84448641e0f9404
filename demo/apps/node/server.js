// Answers with the commit it was built from.
const express = require('express');

const app = express();
const commit = process.env.BERTH_COMMIT || 'unknown';

app.get('/', (request, response) => {
  response.type('text').send(`Hello from Node, commit ${commit}\n`);
});

const server = app.listen(process.env.PORT, () => console.log(`listening on ${process.env.PORT}`));

process.on('SIGTERM', () => server.close(() => process.exit(0)));
