BEGIN TRANSACTION;
CREATE TABLE calls (
	run TEXT NOT NULL, 
	step INTEGER NOT NULL, 
	call INTEGER NOT NULL, 
	model TEXT NOT NULL, 
	tier TEXT NOT NULL, 
	role TEXT NOT NULL, 
	sample INTEGER NOT NULL, 
	text TEXT NOT NULL, 
	tokens_in BIGINT NOT NULL, 
	tokens_out BIGINT NOT NULL, 
	cost_usd DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	local BOOLEAN NOT NULL, 
	error TEXT, 
	labels TEXT, 
	tokens TEXT NOT NULL, 
	meta TEXT NOT NULL, 
	PRIMARY KEY (run, step, call), 
	FOREIGN KEY(run) REFERENCES runs (run) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "calls" VALUES('01M7YR74H82AZG4V4SDQ6PVVN9',0,0,'nano','haiku','answer',0,'replacement_card_duration',8,1,0.0,2.79550138999638875247e-01,1,NULL,'{"replacement_card_duration":0.9163391915773222,"application_status":0.020851595524233393,"order_status":0.011064244074733746,"expiration_date":0.006297834551054345,"card_declined":0.003762068720421775,"report_lost_card":0.003648513456784562,"transactions":0.0025200768809855514,"damaged_card":0.0022010707585703162,"last_maintenance":0.0020626864185038854,"new_card":0.0018722621030674927}','[]','{"n_threads":1,"decode":"labels","batch":1,"finish_reason":"label","truncated":false,"queued":0.21224}');
INSERT INTO "calls" VALUES('01M7YR74H82AZG4V4SDQ6PVVN9',1,0,'small','sonnet','answer',0,'replacement_card_duration',8,1,0.0,4.20408859999952255748e-02,1,NULL,'{"replacement_card_duration":0.914262335299434,"application_status":0.01300494876393566,"order_status":0.010982547248848248,"expiration_date":0.007854091530228606,"transactions":0.003727497802448407,"new_card":0.0026046410463072813,"damaged_card":0.002463692711531515,"card_declined":0.0020244032978050043,"rewards_balance":0.0019576630292122846,"report_lost_card":0.0017804813044564067}','[]','{"n_threads":1,"decode":"labels","batch":1,"finish_reason":"label","truncated":false,"queued":5.5e-05}');
INSERT INTO "calls" VALUES('01M7YR74VS1SBT2S06RNVP0PQ7',0,0,'nano','haiku','answer',0,'what_can_i_ask_you',7,1,0.0,5.77439599965146044269e-03,1,NULL,'{"what_can_i_ask_you":0.9138547933993915,"thank_you":0.017750695585654987,"oos":0.013846659913472077,"repeat":0.009346370874922303,"fun_fact":0.002443661136940647,"time":0.0019520933523650436,"maybe":0.0019093188379127744,"todo_list":0.0017906651728621693,"goodbye":0.0016089503927872724,"cancel":0.0014927504742682474}','[]','{"n_threads":1,"decode":"labels","batch":1,"finish_reason":"label","truncated":false,"queued":0.001607}');
INSERT INTO "calls" VALUES('01M7YR74VS1SBT2S06RNVP0PQ7',1,0,'small','sonnet','answer',0,'what_can_i_ask_you',7,1,0.0,4.86147499987055198289e-03,1,NULL,'{"what_can_i_ask_you":0.5753717671414021,"repeat":0.05526896142154884,"thank_you":0.03698782122775861,"change_volume":0.03599302109160387,"maybe":0.03556076634532821,"goodbye":0.031472210112772105,"yes":0.02184782451360775,"oos":0.017864202026384925,"greeting":0.010885055195316197,"tell_joke":0.00842398642626699}','[]','{"n_threads":1,"decode":"labels","batch":1,"finish_reason":"label","truncated":false,"queued":7.1e-05}');
INSERT INTO "calls" VALUES('01M7YR74WGV9EXWYS29CXBDNMX',0,0,'nano','haiku','answer',0,'weather',10,1,0.0,1.80158300008770311251e-03,1,NULL,'{"weather":0.9970675238684237,"maybe":0.000597344824686397,"replacement_card_duration":0.00033415304899623644,"food_last":0.0001382527056977007,"oos":8.898030963351756e-05,"book_hotel":8.111652993410083e-05,"date":5.950264768346713e-05,"car_rental":5.090487445440109e-05,"calendar":4.9385394827021096e-05,"accept_reservations":4.621373690207722e-05}','[]','{"n_threads":1,"decode":"labels","batch":1,"finish_reason":"label","truncated":false,"queued":0.000119}');
INSERT INTO "calls" VALUES('01V1WAITED',0,0,'m','opus','answer',0,'yes, a person',0,0,0.0,0.0,1,NULL,NULL,'[["yes",-Infinity,null,0.5]]','{"finish":"stop"}');
INSERT INTO "calls" VALUES('01V1WAITED',0,1,'m','opus','answer',0,'',0,0,0.0,0.0,1,'HTTP 500',NULL,'[]','{}');
CREATE TABLE grades (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run TEXT NOT NULL, 
	correct BOOLEAN NOT NULL, 
	"by" TEXT, 
	note TEXT, 
	at TEXT NOT NULL, 
	FOREIGN KEY(run) REFERENCES runs (run) ON DELETE CASCADE
);
INSERT INTO "grades" VALUES(1,'01M7YR74WGV9EXWYS29CXBDNMX',1,'Ada',NULL,'2026-11-21T09:50:21.117+00:00');
INSERT INTO "grades" VALUES(2,'01M7YR74WGV9EXWYS29CXBDNMX',0,NULL,'looked again','2026-11-21T09:50:21.130+00:00');
INSERT INTO "grades" VALUES(3,'01V1WAITED',1,NULL,NULL,'2026-11-21T09:50:21.131+00:00');
CREATE TABLE runs (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run TEXT NOT NULL, 
	graph TEXT NOT NULL, 
	digest TEXT, 
	status TEXT NOT NULL, 
	rule TEXT, 
	text TEXT, 
	draft TEXT, 
	confidence DOUBLE, 
	calibrated BOOLEAN, 
	stage TEXT, 
	model TEXT, 
	tier TEXT, 
	cost_usd DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	started TEXT NOT NULL, 
	baseline_model TEXT, 
	baseline_cost_usd DOUBLE, 
	baseline_assumption TEXT, 
	request_text TEXT NOT NULL, 
	local_only BOOLEAN NOT NULL, 
	metadata TEXT NOT NULL, 
	UNIQUE (run)
);
INSERT INTO "runs" VALUES(1,'01M7YR74H82AZG4V4SDQ6PVVN9','support','25d29568','abstained','local_only',NULL,'replacement_card_duration',0.869565217,1,'second','small','sonnet',0.0,3.29767346000153338536e-01,'2026-11-21T09:50:20.712+00:00','strong',0.00113575,'strong asked once: 593 prompt and 7 answer tokens (4 bytes a token), no reasoning tokens','my new card has still not come',1,'{"ticket":7}');
INSERT INTO "runs" VALUES(2,'01M7YR74VS1SBT2S06RNVP0PQ7','support','25d29568','abstained','local_only',NULL,'what_can_i_ask_you',0.862745098,1,'first','nano','haiku',0.0,2.02505289998953230679e-02,'2026-11-21T09:50:21.049+00:00','strong',0.00110775,'strong asked once: 593 prompt and 5 answer tokens (4 bytes a token), no reasoning tokens','please help me with the thing',1,'{"ticket":7}');
INSERT INTO "runs" VALUES(3,'01M7YR74WGV9EXWYS29CXBDNMX','support','25d29568','accepted','confident','weather',NULL,0.996871741,1,'first','nano','haiku',0.0,4.53381299985267105512e-03,'2026-11-21T09:50:21.072+00:00','strong',0.00106575,'strong asked once: 593 prompt and 2 answer tokens (4 bytes a token), no reasoning tokens','will it rain in Ghent on Friday?',1,'{"ticket":7}');
INSERT INTO "runs" VALUES(5,'01V1WAITED','desk','1','accepted','unchecked','yes, a person',NULL,NULL,NULL,NULL,NULL,NULL,0.25,0.0,'','m',0.5,'a','is anybody there?',0,'{}');
CREATE TABLE schema_info (
	version INTEGER NOT NULL
);
INSERT INTO "schema_info" VALUES(1);
CREATE TABLE steps (
	run TEXT NOT NULL, 
	step INTEGER NOT NULL, 
	stage TEXT NOT NULL, 
	action TEXT NOT NULL, 
	rule TEXT NOT NULL, 
	threshold DOUBLE, 
	target TEXT, 
	detail TEXT, 
	gate TEXT, 
	estimate_by TEXT, 
	chosen INTEGER, 
	signals TEXT, 
	score DOUBLE, 
	confidence DOUBLE, 
	calibrated BOOLEAN, 
	seconds DOUBLE NOT NULL, 
	PRIMARY KEY (run, step), 
	FOREIGN KEY(run) REFERENCES runs (run) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "steps" VALUES('01M7YR74H82AZG4V4SDQ6PVVN9',0,'first','escalate','below_threshold',0.985,'second',NULL,NULL,'labels',0,'{"top1":0.9163391915773222,"margin":0.8954875960530888,"entropy":0.8862365346582471}',9.1633919157732224292e-01,0.862745098,1,2.79882643000291864154e-01);
INSERT INTO "steps" VALUES('01M7YR74H82AZG4V4SDQ6PVVN9',1,'second','escalate','below_threshold',0.96,'last',NULL,NULL,'labels',0,'{"top1":0.914262335299434,"margin":0.9012573865354984,"entropy":0.8758310567434808}',0.914262335299434,0.869565217,1,4.23446879999573866371e-02);
INSERT INTO "steps" VALUES('01M7YR74H82AZG4V4SDQ6PVVN9',2,'last','abstain','local_only',NULL,NULL,'strong would leave this machine',NULL,NULL,NULL,NULL,NULL,NULL,NULL,4.54179998996551148593e-05);
INSERT INTO "steps" VALUES('01M7YR74VS1SBT2S06RNVP0PQ7',0,'first','escalate','below_threshold',0.985,'second',NULL,NULL,'labels',0,'{"top1":0.9138547933993915,"margin":0.8961040978137365,"entropy":0.8811090835075}',9.13854793399391462926e-01,0.862745098,1,0.00610016100017674);
INSERT INTO "steps" VALUES('01M7YR74VS1SBT2S06RNVP0PQ7',1,'second','escalate','below_threshold',0.96,'last',NULL,NULL,'labels',0,'{"top1":0.5753717671414021,"margin":0.5201028057198533,"entropy":0.5515904454009333}',5.75371767141402146172e-01,0.506024096,1,5.17343799992886488325e-03);
INSERT INTO "steps" VALUES('01M7YR74VS1SBT2S06RNVP0PQ7',2,'last','abstain','local_only',NULL,NULL,'strong would leave this machine',NULL,NULL,NULL,NULL,NULL,NULL,NULL,4.56979996670270338654e-05);
INSERT INTO "steps" VALUES('01M7YR74WGV9EXWYS29CXBDNMX',0,'first','accept','confident',0.985,NULL,NULL,NULL,'labels',0,'{"top1":0.9970675238684237,"margin":0.9964701790437372,"entropy":0.9937198960065868}',9.97067523868423677413e-01,0.996871741,1,2.09963599991169758141e-03);
INSERT INTO "steps" VALUES('01V1WAITED',0,'s','accept','unchecked',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0.0);
CREATE INDEX ix_runs_status ON runs (status);
CREATE INDEX ix_runs_tier ON runs (tier);
CREATE INDEX ix_runs_rule ON runs (rule);
CREATE INDEX ix_runs_cost_usd ON runs (cost_usd);
CREATE INDEX ix_runs_seconds ON runs (seconds);
CREATE INDEX ix_runs_confidence ON runs (confidence);
CREATE INDEX ix_runs_started ON runs (started);
CREATE INDEX ix_runs_graph ON runs (graph);
CREATE INDEX ix_grades_run ON grades (run);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',5);
INSERT INTO "sqlite_sequence" VALUES('grades',3);
COMMIT;
