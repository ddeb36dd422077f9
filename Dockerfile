# The demo:                docker build -t upweight . && docker run --rm -v "$PWD/out:/out" upweight
# The figures of papers:   docker run --rm -v "$PWD/data:/data" -v "$PWD/out:/out" upweight ./run reproduce all --data /data
FROM python:3.13-slim

RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
WORKDIR /upweight
COPY . .
RUN UPWEIGHT_EXTRAS=reproduce ./run --help > /dev/null
CMD ["./run", "demo", "--no-open", "-o", "/out/report.html"]
