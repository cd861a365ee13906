"""Question patterns for `cascade.lab.training.outliers`; `topics` fills each `{slot}`.

No pattern may ask for anything that one of CLINC150's 150 intents covers.
"""

from __future__ import annotations

PATTERNS: dict[str, str] = {
    "people": (
        "when was {person} born|who was {person}|how did {person} die|what is {person} best known for|"
        "where did {person} grow up|who was {person} married to|what did {person} discover|"
        "was {person} left handed|did {person} have any children|"
        "what is the most important achievement of {person}|give me a biography of {person}|"
        "how old was {person} at death|what did {person} think of {person}|"
        "which books were written about {person}"
    ),
    "stars": (
        "how tall is {star}|who is {star} dating|what is the net worth of {star}|when did {star} retire|"
        "how many awards has {star} won|is {star} still alive|what was the first hit by {star}|"
        "where does {star} live|what is {star} famous for|who is better {star} or {star}|"
        "what did {star} say in the interview|is {star} on tour"
    ),
    "geography": (
        "what is the capital of {country}|what is the population of {country}|"
        "how many people live in {city}|which countries border {country}|what is the flag of {country}|"
        "who is the {office} of {country}|what is the {adj} river in {country}|"
        "what is the {adj} mountain in {country}|is {city} the capital of {country}|"
        "what continent is {country} on|when did {country} become independent|"
        "what do they export from {country}|what is {state} known for|what is the state bird of {state}|"
        "who founded {city}|how big is {country}|what form of government does {country} have|"
        "how many counties are in {state}|what is the religion of {country}"
    ),
    "animals": (
        "what do {animal}s eat|how long does a {animal} live|how fast can a {animal} run|"
        "where do {animal}s live|are {animal}s endangered|do {animal}s hibernate|"
        "how many eggs does a {animal} lay|what is a baby {animal} called|can a {animal} swim|"
        "which is faster a {animal} or a {animal}|why does my {animal} sleep so much|"
        "what is the {adj} {animal} in the world|how do {animal}s communicate|is a {animal} a mammal|"
        "how heavy is a {animal}|is the {animal} cold blooded|how do i train a {animal}|"
        "what is the scientific name of the {animal}"
    ),
    "plants": (
        "how often should i water my {plant}|how much sun does a {plant} need|"
        "why is my {plant} turning brown|when should i prune my {plant}|how tall does a {plant} grow|"
        "is {plant} poisonous|how do i plant a {plant}|what fertilizer is good for a {plant}|"
        "how do i get rid of {pest} on my {plant}|which soil is best for a {plant}"
    ),
    "sports": (
        "who won the {team} game|when do the {team} play next|who is the coach of the {team}|"
        "what is the score of the {team} game|how many players are on a {sport} team|"
        "what are the rules of {sport}|who is the {adj} {sport} player of all time|"
        "how many championships have the {team} won|who invented {sport}|"
        "what channel is the {team} game on|how do i get better at {sport}|how long is a {sport} match|"
        "who got traded from the {team}|is {sport} an olympic sport|what is the record of the {team}|"
        "where do the {team} play|how do you keep score in {sport}|who has the most goals in {sport}|"
        "can you explain offside in {sport}"
    ),
    "films": (
        "who directed {film}|what year did {film} come out|who stars in {film}|how long is {film}|"
        "how does {film} end|how many oscars did {film} win|is there a sequel to {film}|"
        "what is {film} rated|how many seasons of {show} are there|who played the villain in {film}|"
        "when is the new season of {show}|where was {film} filmed|who is the main character in {show}|"
        "is {show} worth watching|what is {show} about|how much did {film} make at the box office|"
        "who wrote the script of {film}|which actor left {show}|what is on tv tonight"
    ),
    "games": (
        "how do you play {game}|who created {game}|what is the best strategy in {game}|"
        "when did {game} come out|how many players can play {game}|"
        "how do i beat the last level of {game}|is {game} free|what are the rules of {game}|"
        "what is the high score in {game}|can i play {game} on my {device}|"
        "what are some cheats for {game}|who is the {game} champion"
    ),
    "science": (
        "how does {science} work|explain {science} to me|who discovered {science}|"
        "why is {science} important|what causes {science}|give me an example of {science}|"
        "how hot is {space}|how big is {space}|how many moons does {space} have|is there life on {space}|"
        "who first saw {space}|what is {space} made of|how is {material} made|"
        "what is the melting point of {material}|who invented {material}|is {material} recyclable|"
        "what is the chemical formula of {material}|why does {material} smell|what is the speed of light|"
        "how old is the universe|how do volcanoes form|what makes thunder|"
        "how many bones are in the {body}|how deep is the ocean"
    ),
    "health": (
        "how do i treat {illness}|what are the symptoms of {illness}|is {illness} contagious|"
        "what causes {illness}|why does my {body} hurt|how do i stretch my {body}|"
        "what doctor should i see for my {body}|how long does {illness} last|is {food} bad for {illness}|"
        "how do i relieve pain in my {body}|can you die from {illness}|how do i sleep better|"
        "how much water should i drink a day|what are exercises for my {body}|"
        "is it safe to exercise with {illness}|how do i lose weight|how do i build muscle|"
        "what is a normal heart rate|how does the {body} work|what medicine helps {illness}"
    ),
    "home": (
        "how do i get {stain} out of my {thing}|how do i clean my {thing}|how do i get rid of {pest}|"
        "how do i fix my {house}|how much does a new {house} cost|how do i paint my {house}|"
        "how do i use a {tool}|what is the best {tool} to buy|how do i sharpen a {tool}|"
        "who can repair my {thing}|why is my {thing} making noise|how do i insulate my {house}|"
        "how do i keep {pest} out of the {house}|how long does a {thing} last|"
        "where was the {tool} invented|how do i remodel my {house}|how do i unclog the {house}|"
        "what color should i paint the {house}|where can i rent a {tool}"
    ),
    "history": (
        "what caused {event}|when did {event} start|who won {event}|how long did {event} last|"
        "what happened in {year}|how many people died in {event}|why is {event} important|"
        "what ended {event}|what was life like during {event}|tell me about {event}|"
        "who was {office} in {year}|which countries took part in {event}|when was the {landmark} built|"
        "who built the {landmark}|how tall is the {landmark}|what time does the {landmark} open|"
        "how old is the {landmark}|what was invented in {year}|who ruled {country} in {year}|"
        "how many people visit the {landmark}"
    ),
    "arts": (
        "who wrote {work}|who painted {work}|what is {work} about|where is {work} kept|"
        "how much is {work} worth|what is the theme of {work}|when was {work} made|"
        "who is the narrator in {work}|how do i learn the {instrument}|"
        "how many strings does a {instrument} have|who invented {genre}|how much is a used {instrument}|"
        "where did {genre} start|what scale is used in {genre}|who is the {adj} {instrument} player|"
        "how do i tune a {instrument}|is the {instrument} hard|"
        "what is the difference between {genre} and {genre}|how do i write a {document}|"
        "can you proofread my {document}|write me a {document} about {animal}s|"
        "what are the best works of {person}|where can i study painting"
    ),
    "school": (
        "can you help me with my {subject} homework|what is the hardest part of {subject}|"
        "how do i get into {school}|what is the tuition at {school}|how many students go to {school}|"
        "how do i study for a {subject} exam|who is the founder of {school}|when does the semester start|"
        "do i need {subject} to become a {job}|what is a good gpa|is {subject} harder than {subject}|"
        "what sat score do i need for {school}|where is {school}|explain {subject} to a {child}|"
        "can you recommend a {subject} textbook|how long is {school}|how do i apply for a scholarship|"
        "is {school} a good college"
    ),
    "work": (
        "how do i become a {job}|what does a {job} do|how much does a {job} make|"
        "is being a {job} stressful|what degree does a {job} need|how do i find work as a {job}|"
        "how do i ask my {relation} for a raise|what should i wear to a {job} interview|"
        "how do i quit my job|should i hire a {job}|how do i start a {biz} business|what is {biz}|"
        "how do i get into {biz}|what is the biggest {biz} company|who is the ceo of {company}|"
        "when was {company} founded|where is {company} headquartered|"
        "how many employees does {company} have|what does {company} sell|is {company} hiring|"
        "what are the latest trends in {biz}|who owns {company}|how does {company} make money|"
        "how do i write a {document} for a {job}|how do i complain to {company}|"
        "what is the customer service number of {company}"
    ),
    "money": (
        "should i invest in {invest}|how much is {invest} worth|is {invest} a good investment|"
        "how do i buy {invest}|what is the price of {company} stock|how did the stock market do|"
        "what is the current inflation rate|how do i get a mortgage|how do i apply for a loan|"
        "can i open a joint account|how do i close my account|what are some ways to save money|"
        "how do i make a budget|how do i retire early|what is compound interest|"
        "who is my financial advisor|how do i file for bankruptcy|how much should i save for college|"
        "does {company} pay a dividend|what is the overdraft fee|how do i open a savings account|"
        "how do i open a line of credit|how do i add a cosigner|"
        "how do i dispute the terms of my loan|what are your branch hours|how do i sell my house|"
        "how do i get out of debt|what is a good price for {invest}|who sets the price of {invest}|"
        "how do i update my email on my account|"
        "can i have two checking accounts"
    ),
    "law": (
        "is {law} a crime|what is the penalty for {law}|do i need a lawyer for {law}|how does {law} work|"
        "can i go to jail for {law}|how do i file {law}|what are my rights in {law}|"
        "is it legal to own a {animal}|how old do you have to be to drive a {vehicle}|"
        "who is the {office}|how is the {office} elected|what is your view on {policy}|"
        "what does the {office} do|when is the next election|who should i vote for|"
        "what is the latest on {policy}|who supports {policy}|how do i register to vote|"
        "how long is the term of a {office}|what are the arguments against {policy}"
    ),
    "tech": (
        "how do i install {code}|how do i learn {code}|why is my {device} so slow|"
        "what is the best {device} to buy|how much does a {device} cost|how do i delete my {app} account|"
        "who founded {app}|post this {file} on {app}|open {app}|search the web for {device}s|"
        "check my {app} messages|read my email|take a picture|take a screenshot|delete the {file}|"
        "print this {file}|send the {file} by email|zip the {file}|rename the {file}|"
        "scan the {file} for viruses|how do i sort a list in {code}|"
        "how do i convert a {file} to another format|how many followers does {star} have on {app}|"
        "download {app}|update {app}|why does {app} keep crashing|log me out of {app}|"
        "how do i fix a broken {device}|what is the battery life of a {device}|"
        "is {code} better than {code}|open the {file}|how do i reset my {app} password|record a video|"
        "back up my {device}|how do i block someone on {app}|close all tabs|find a {file} from last week|"
        "how do i build a website in {code}|what is the latest version of {code}|show me funny cat videos"
    ),
    "cars": (
        "where are the {carpart} on this car|how do i replace the {carpart}|"
        "how much do new {carpart} cost|what does the {carpart} do|how fast does a {vehicle} go|"
        "how much does a {vehicle} weigh|who invented the {vehicle}|how much is a used {vehicle}|"
        "is the {vehicle} safe|how do i drive a {vehicle}|what is the towing capacity of a {vehicle}|"
        "how do i clean the {carpart}|why is the {carpart} making a noise|how do i parallel park|"
        "what size {carpart} does this car take|how much horsepower does a {vehicle} have|"
        "which is cheaper a {vehicle} or a {vehicle}|how do i sell my {vehicle}|"
        "how long does it take to paint a {vehicle}|does the {vehicle} come in red|"
        "what is the top speed of a {vehicle}"
    ),
    "travel": (
        "what is the best airline|how fast does a {vehicle} fly|what is the nightlife like in {city}|"
        "what language do they speak in {country}|how do people dress in {country}|"
        "how expensive is it to live in {city}|what is the crime rate in {city}|"
        "how do i become a citizen of {country}|how do i get a refund on my flight|"
        "do i get frequent flyer miles|what is the local paper in {city}|are there protests in {city}|"
        "what are the headlines from {city}|is there a bus strike in {city}|how do i upgrade my seat|"
        "which seat is best on a {vehicle}|how do i renew my passport|what time does the store open"
    ),
    "food": (
        "who invented {food}|where does {food} come from|is {food} vegan|how is {food} made in factories|"
        "what is the history of {food}|why is {food} so expensive|which country makes the most {food}|"
        "is {food} good for dogs|what is the {adj} {food}|does {food} have caffeine|"
        "how many kinds of {food} are there|what wine goes with {food}|who owns the {adj} {food} company|"
        "how do you eat {food} politely|is {food} illegal in {country}|can {animal}s eat {food}"
    ),
    "style": (
        "what should i wear with a {cloth}|how do i wash a {cloth}|how much is a {cloth}|"
        "where can i buy a {cloth}|is a {cloth} in fashion|how do i fix {beauty}|what causes {beauty}|"
        "what product is good for {beauty}|how do i tie a {cloth}|how do i get rid of {beauty}|"
        "can you return my {cloth} to the store|how do i cut my own hair|what size {cloth} am i"
    ),
    "family": (
        "how do i get my {child} to sleep|when do {child}s start talking|"
        "what is a good gift for my {relation}|how do i apologize to my {relation}|"
        "my {relation} is angry with me|how do i talk to my {relation}|is my {relation} lying to me|"
        "how do i discipline my {child}|what should i name my {child}|am i a {trait}|"
        "how do i become a {trait}|what makes someone a {trait}|what is the personality of a {sign}|"
        "are {sign} and {sign} compatible|what is my horoscope for {sign}|how do i make new friends|"
        "why do people fall in love|how do i get over my {relation}|should i marry my {relation}|"
        "my {child} won't eat|is it normal to dream about my {relation}|how do i stop being a {trait}"
    ),
    "ideas": (
        "what is {religion}|who founded {religion}|how many people follow {religion}|"
        "what is the holy book of {religion}|what is {idea}|who came up with {idea}|"
        "is {idea} good or bad|what are the arguments for {idea}|explain {idea}|"
        "what is the difference between {idea} and {idea}|do you believe in {idea}|"
        "how do i learn {language}|who speaks {language}|how many people speak {language}|"
        "is {language} a dead language|where does {language} come from|is there life after death"
    ),
    "hobbies": (
        "how do i start {hobby}|what do i need for {hobby}|is {hobby} expensive|"
        "where can i learn {hobby}|who is the {adj} {job} in the world|how many people do {hobby}|"
        "is {hobby} good exercise|any tips for {hobby}|who is into {hobby}|"
        "how long does it take to learn {hobby}|are there {hobby} classes in {city}|"
        "what are the benefits of {hobby}"
    ),
    "misc": (
        "what is the {adj} animal|what is the {adj} building in {city}|"
        "how many sides does a {number} sided shape have|who is the {adj} person alive|"
        "how do you make a paper airplane|why do we yawn|how does a {tool} work|"
        "what is the formula for the area of a circle|how many seconds are in a leap year|"
        "what is the {adj} city in {state}|which came first the chicken or the egg|"
        "what happens when you mix {food} and {food}|how many {animal}s are left|"
        "what is {company} working on|name {number} kinds of {animal}s|list {number} cities in {country}|"
        "how many {food} bars can you stack|what rhymes with {food}|which {team} player is injured|"
        "draw a {animal}|compare {country} and {country}|what does my {relation} want|"
        "is it better to rent or to buy|why do {animal}s fear {animal}s|when does school start|"
        "what is the {adj} kind of {food}|who makes the {adj} {device}"
    ),
}

OPENINGS = (
    "||||||||please tell me |can you tell me |i want to know |do you know |i was wondering |hey |so |"
    "tell me |i'd like to know |could you say |explain |ok |find out |look up |i need to know |"
)
